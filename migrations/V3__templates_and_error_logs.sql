-- Templates of sessions and clusters, and errors that clients report.

CREATE TABLE session_templates (
    id          uuid         PRIMARY KEY,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    is_active   boolean      NOT NULL DEFAULT true,
    domain_name varchar(64)  NOT NULL REFERENCES domains (name) ON UPDATE CASCADE ON DELETE CASCADE,
    group_id    uuid         REFERENCES groups (id) ON DELETE CASCADE,
    user_uuid   uuid         NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
    type        text         NOT NULL DEFAULT 'TASK' CHECK (type IN ('TASK', 'CLUSTER')),
    name        varchar(128) NOT NULL,
    template    jsonb        NOT NULL
);
COMMENT ON TABLE session_templates IS 'What a session or a cluster is made of, for use again and again.';
COMMENT ON COLUMN session_templates.is_active IS 'False once it was deleted.';
COMMENT ON COLUMN session_templates.template IS 'Checked and in canonical spelling; see manager/src/api/rest/template_payload.rs.';
CREATE INDEX session_templates_active ON session_templates (type, created_at) WHERE is_active;

CREATE TABLE error_logs (
    id             uuid        PRIMARY KEY,
    created_at     timestamptz NOT NULL DEFAULT now(),
    severity       text        NOT NULL
        CHECK (severity IN ('critical', 'error', 'warning', 'info', 'debug')),
    source         text        NOT NULL,
    "user"         uuid        REFERENCES users (uuid) ON DELETE CASCADE,
    is_read        boolean     NOT NULL DEFAULT false,
    is_cleared     boolean     NOT NULL DEFAULT false,
    message        text        NOT NULL,
    context_lang   text        NOT NULL,
    context_env    jsonb       NOT NULL,
    request_url    text,
    request_status integer,
    traceback      text
);
COMMENT ON TABLE error_logs IS 'Errors as clients have seen them.';
COMMENT ON COLUMN error_logs."user" IS 'Who reported it; NULL for errors of the cluster itself.';
COMMENT ON COLUMN error_logs.is_cleared IS 'True once its user wants to see it no more; administrators still do.';
CREATE INDEX error_logs_recent ON error_logs (created_at DESC);
CREATE INDEX error_logs_user ON error_logs ("user", created_at DESC);
