-- Lists of people show the newest first; they stay fast however many there are.

CREATE INDEX users_recent ON users (created_at DESC, uuid);
CREATE INDEX users_recent_by_domain ON users (domain_name, created_at DESC, uuid);
CREATE INDEX keypairs_recent ON keypairs (created_at DESC, access_key);
