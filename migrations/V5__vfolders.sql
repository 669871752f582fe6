-- Virtual folders, who shares them, and what is on its way into them.

CREATE TABLE vfolders (
    id             uuid         PRIMARY KEY,
    host           varchar(128) NOT NULL,
    name           varchar(64)  NOT NULL,
    "user"         uuid         REFERENCES users (uuid) ON DELETE SET NULL,
    "group"        uuid         REFERENCES groups (id) ON DELETE SET NULL,
    creator        varchar(128) NOT NULL,
    usage_mode     text         NOT NULL DEFAULT 'general'
        CHECK (usage_mode IN ('general', 'model', 'data')),
    permission     text         NOT NULL DEFAULT 'rw' CHECK (permission IN ('ro', 'rw', 'wd')),
    cloneable      boolean      NOT NULL DEFAULT false,
    max_size       bigint,
    max_files      integer      NOT NULL DEFAULT 0,
    used_files     bigint       NOT NULL DEFAULT 0,
    used_bytes     bigint       NOT NULL DEFAULT 0,
    created_at     timestamptz  NOT NULL DEFAULT now(),
    last_used      timestamptz,
    status         text         NOT NULL DEFAULT 'ready'
        CHECK (status IN ('ready', 'performing', 'trashed', 'deleting')),
    status_changed timestamptz  NOT NULL DEFAULT now(),
    clone_source   uuid         REFERENCES vfolders (id) ON DELETE SET NULL,
    CHECK (num_nonnulls("user", "group") <= 1)
);
COMMENT ON TABLE vfolders IS 'Folders that people keep between sessions, each of a user or a group. One whose owner is gone is removed.';
COMMENT ON COLUMN vfolders.host IS 'The volume it lies on: a directory beneath volumes/_mount.';
COMMENT ON COLUMN vfolders.creator IS 'E-mail address of who made it.';
COMMENT ON COLUMN vfolders.permission IS 'Of its owner''s sessions and of the group''s members, unless vfolder_permissions has another.';
COMMENT ON COLUMN vfolders.max_size IS 'Bytes it may hold; NULL is unlimited.';
COMMENT ON COLUMN vfolders.used_bytes IS 'As last measured.';
COMMENT ON COLUMN vfolders.status IS 'performing: its content is being copied from clone_source. trashed: deleted, can be restored. deleting: its content is being removed, then the row.';
CREATE UNIQUE INDEX vfolders_name_of_user ON vfolders ("user", name) WHERE status IN ('ready', 'performing');
CREATE UNIQUE INDEX vfolders_name_of_group ON vfolders ("group", name) WHERE status IN ('ready', 'performing');
CREATE INDEX vfolders_user ON vfolders ("user");
CREATE INDEX vfolders_group ON vfolders ("group");
CREATE INDEX vfolders_clone_source ON vfolders (clone_source) WHERE clone_source IS NOT NULL;
CREATE INDEX vfolders_unwanted ON vfolders (status, status_changed)
    WHERE status IN ('trashed', 'deleting') OR num_nonnulls("user", "group") = 0;
CREATE INDEX vfolders_recent ON vfolders (created_at DESC, id);

CREATE TABLE vfolder_permissions (
    vfolder    uuid NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    "user"     uuid NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
    permission text NOT NULL CHECK (permission IN ('ro', 'rw', 'wd')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vfolder, "user")
);
COMMENT ON TABLE vfolder_permissions IS 'What others than its owner may do with a user''s folder, or a member with a group''s.';
CREATE INDEX vfolder_permissions_user ON vfolder_permissions ("user");

CREATE TABLE vfolder_invitations (
    id          uuid         PRIMARY KEY,
    vfolder     uuid         NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    inviter     varchar(256) NOT NULL,
    invitee     varchar(256) NOT NULL,
    permission  text         NOT NULL CHECK (permission IN ('ro', 'rw', 'wd')),
    state       text         NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'canceled', 'accepted', 'rejected')),
    created_at  timestamptz  NOT NULL DEFAULT now(),
    modified_at timestamptz
);
COMMENT ON TABLE vfolder_invitations IS 'Offers to share a user''s folder. Inviter and invitee are e-mail addresses.';
CREATE UNIQUE INDEX vfolder_invitations_pending ON vfolder_invitations (vfolder, invitee) WHERE state = 'pending';
CREATE INDEX vfolder_invitations_invitee ON vfolder_invitations (invitee) WHERE state = 'pending';
CREATE INDEX vfolder_invitations_inviter ON vfolder_invitations (inviter) WHERE state = 'pending';

CREATE TABLE vfolder_uploads (
    id           uuid        PRIMARY KEY,
    vfolder      uuid        NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    "user"       uuid        NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
    path         text        NOT NULL,
    size         bigint      NOT NULL CHECK (size >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    completed_at timestamptz
);
COMMENT ON TABLE vfolder_uploads IS 'Files that are promised room until they are complete or expire. Their bytes lie beside the folders under this id.';
CREATE INDEX vfolder_uploads_vfolder ON vfolder_uploads (vfolder);
CREATE INDEX vfolder_uploads_expiry ON vfolder_uploads (expires_at);

CREATE TABLE session_vfolders (
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    vfolder    uuid NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    PRIMARY KEY (session_id, vfolder)
);
COMMENT ON TABLE session_vfolders IS 'Which folders a session has mounted; where, says sessions.vfolder_mounts.';
CREATE INDEX session_vfolders_vfolder ON session_vfolders (vfolder);

CREATE TABLE storage_keys (
    id         integer     PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    secret     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE storage_keys IS 'What tokens of uploads and downloads are signed with; the newest counts. Deleting it ends all of them.';
-- Two random ids have 244 random bits.
INSERT INTO storage_keys (secret) VALUES (gen_random_uuid()::text || gen_random_uuid()::text);
