-- Takes a lease of calls for one keypair out of a rolling window.
--
-- The window is a hash of bucket number -> calls, so its size does not grow with the limit.
-- KEYS     the keypair's window; its calls so far and when it was last used
-- ARGV     limit, calls wanted, unused calls of the last lease, that lease's bucket,
--          refused calls not yet counted, seconds in a bucket, buckets in the window
-- Returns  calls granted (0: refused, and counted), calls in the window, bucket
local limit, wanted, unused = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lease_bucket, refused = ARGV[4], tonumber(ARGV[5])
local width, count = tonumber(ARGV[6]), tonumber(ARGV[7])
local bucket = math.floor(tonumber(redis.call('TIME')[1]) / width)
local total, returned = 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if tonumber(fields[i]) <= bucket - count then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    local calls = tonumber(fields[i + 1])
    if fields[i] == lease_bucket and unused > 0 then
      local back = math.min(unused, calls)
      calls = calls - back
      returned = back
      redis.call('HINCRBY', KEYS[1], fields[i], -back)
    end
    total = total + calls
  end
end
total = total + refused
local granted = limit - total
if granted > wanted then granted = wanted end
-- Near the limit leases shrink to single calls, so that managers cannot hoard the rest.
local share = math.max(1, math.floor((limit - total) / 64))
if granted > share then granted = share end
if granted < 0 then granted = 0 end
local counted = granted
if counted == 0 then counted = 1 end
redis.call('HINCRBY', KEYS[1], bucket, counted + refused)
redis.call('EXPIRE', KEYS[1], width * (count + 1))
redis.call('HINCRBY', KEYS[2], 'calls', counted + refused - returned)
redis.call('HSET', KEYS[2], 'last', redis.call('TIME')[1])
redis.call('EXPIRE', KEYS[2], 30 * 86400)
return { granted, total + counted, bucket }
