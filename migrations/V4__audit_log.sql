-- What was changed through the API, by whom, from where and with what result.

CREATE TABLE audit_log (
    seq         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    request_id  text        NOT NULL,
    user_uuid   uuid,
    email       text,
    domain_name text,
    access_key  text,
    client      text,
    operation   text        NOT NULL,
    target      text        NOT NULL DEFAULT '',
    outcome     text        NOT NULL CHECK (outcome IN ('success', 'refused', 'failed')),
    message     text        NOT NULL DEFAULT ''
);
COMMENT ON TABLE audit_log IS 'Append-only. It names users, keypairs and domains as they were and refers to none, so that entries outlive them. Secrets are never written to it.';
COMMENT ON COLUMN audit_log.user_uuid IS 'NULL for callers who did not sign: logins and sign-ups.';
COMMENT ON COLUMN audit_log.client IS 'Address the request came from.';
COMMENT ON COLUMN audit_log.operation IS 'Name of a GraphQL mutation, or method and path of a route.';
COMMENT ON COLUMN audit_log.target IS 'What it was done to, as the caller named it.';
COMMENT ON COLUMN audit_log.message IS 'Why it was refused or failed, as the caller was told.';
CREATE INDEX audit_log_domain ON audit_log (domain_name, seq DESC);
CREATE INDEX audit_log_user ON audit_log (user_uuid, seq DESC);

-- An administrator may move an agent to another scaling group; that holds until the agent
-- itself is configured to join another one.
ALTER TABLE agents ADD COLUMN reported_scaling_group varchar(64);
COMMENT ON COLUMN agents.reported_scaling_group IS 'The group the agent last asked to join; scaling_group follows only when it changes.';
