-- Work that outlives the request that began it, and reports to callback URLs.

CREATE TABLE background_tasks (
    id               uuid             PRIMARY KEY,
    name             text             NOT NULL,
    subject          text,
    user_uuid        uuid             NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
    status           text             NOT NULL DEFAULT 'started'
        CHECK (status IN ('started', 'done', 'cancelled', 'failed')),
    current_progress bigint           NOT NULL DEFAULT 0,
    total_progress   bigint           NOT NULL DEFAULT 0,
    message          text             NOT NULL DEFAULT '',
    arguments        jsonb            NOT NULL DEFAULT '{}',
    revision         bigint           NOT NULL DEFAULT 0,
    manager          text             NOT NULL,
    incarnation      uuid             NOT NULL,
    lease_until      timestamptz      NOT NULL,
    created_at       timestamptz      NOT NULL DEFAULT now(),
    updated_at       timestamptz      NOT NULL DEFAULT now()
);
COMMENT ON TABLE background_tasks IS 'Work that goes on after the answer to the request that began it. Rows are kept for 24 hours after their last change.';
COMMENT ON COLUMN background_tasks.name IS 'What is done: rescan_images, commit_session…';
COMMENT ON COLUMN background_tasks.subject IS 'What it is done to; two tasks of one name and subject never run at once. NULL is no such limit.';
COMMENT ON COLUMN background_tasks.user_uuid IS 'Who began it and may watch it.';
COMMENT ON COLUMN background_tasks.current_progress IS 'Of total_progress, in units of the task''s own choice.';
COMMENT ON COLUMN background_tasks.message IS 'While it runs: what was done last. Ended: what came of it, or why it failed.';
COMMENT ON COLUMN background_tasks.arguments IS 'What another manager needs to carry it on, for tasks that can be carried on.';
COMMENT ON COLUMN background_tasks.revision IS 'Grows with every change, so that a watcher sees each state once.';
COMMENT ON COLUMN background_tasks.manager IS 'Id of the manager whose process runs it.';
COMMENT ON COLUMN background_tasks.incarnation IS 'That process: a manager that was restarted is another.';
COMMENT ON COLUMN background_tasks.lease_until IS 'Renewed by that process; when it has passed, nobody runs the task any more.';
CREATE UNIQUE INDEX background_tasks_one_at_a_time ON background_tasks (name, subject) WHERE status = 'started';
CREATE INDEX background_tasks_updated ON background_tasks (updated_at);

CREATE TABLE session_callbacks (
    seq        bigint      PRIMARY KEY REFERENCES transitions (seq) ON DELETE CASCADE,
    session_id uuid        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    attempts   integer     NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE session_callbacks IS 'Transitions that a callback URL has still to be told of. A row goes when the receiver has answered, or after the last attempt.';
COMMENT ON COLUMN session_callbacks.due_at IS 'When to try (again). Of one session only the oldest is tried, so that a receiver sees them in order.';
CREATE INDEX session_callbacks_session ON session_callbacks (session_id, seq);

CREATE TABLE session_callback_position (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    seq      bigint  NOT NULL
);
COMMENT ON TABLE session_callback_position IS 'Up to which transition session_callbacks has been filled.';
INSERT INTO session_callback_position (seq) SELECT coalesce(max(seq), 0) FROM transitions;
