-- The whole durable state of a cluster.
--
-- Conventions: all times are timestamptz in UTC. Enumerations are text with a CHECK, in the
-- spelling of the wire. Resource slots are jsonb objects of decimal strings ("mem" in bytes).
-- "Immutable" columns never change after the insert; the others may.

-- Who -----------------------------------------------------------------------------------

CREATE TABLE domains (
    name                     varchar(64) PRIMARY KEY,
    description              varchar(512),
    is_active                boolean     NOT NULL DEFAULT true,
    created_at               timestamptz NOT NULL DEFAULT now(),
    modified_at              timestamptz NOT NULL DEFAULT now(),
    total_resource_slots     jsonb       NOT NULL DEFAULT '{}',
    allowed_vfolder_hosts    jsonb       NOT NULL DEFAULT '{}',
    allowed_docker_registries text[]     NOT NULL DEFAULT '{}',
    integration_id           varchar(512),
    dotfiles                 jsonb       NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE domains IS 'The outermost tenant: users, groups and sessions belong to exactly one.';
COMMENT ON COLUMN domains.total_resource_slots IS 'Cap on all its live kernels together; a slot that is absent is unlimited.';

CREATE TABLE user_resource_policies (
    name                               varchar(256) PRIMARY KEY,
    created_at                         timestamptz NOT NULL DEFAULT now(),
    max_vfolder_size                   bigint      NOT NULL DEFAULT -1,
    max_session_count_per_model_session integer    NOT NULL DEFAULT 10
);
COMMENT ON COLUMN user_resource_policies.max_vfolder_size IS 'Bytes in all folders of a user; -1 is unlimited.';

CREATE TABLE project_resource_policies (
    name             varchar(256) PRIMARY KEY,
    created_at       timestamptz NOT NULL DEFAULT now(),
    max_vfolder_size bigint      NOT NULL DEFAULT -1
);

CREATE TABLE groups (
    id                    uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name                  varchar(64) NOT NULL,
    description           varchar(512),
    is_active             boolean     NOT NULL DEFAULT true,
    created_at            timestamptz NOT NULL DEFAULT now(),
    modified_at           timestamptz NOT NULL DEFAULT now(),
    integration_id        varchar(512),
    domain_name           varchar(64) NOT NULL REFERENCES domains (name) ON UPDATE CASCADE ON DELETE CASCADE,
    total_resource_slots  jsonb       NOT NULL DEFAULT '{}',
    allowed_vfolder_hosts jsonb       NOT NULL DEFAULT '{}',
    dotfiles              jsonb       NOT NULL DEFAULT '[]',
    resource_policy       varchar(256) NOT NULL REFERENCES project_resource_policies (name) ON UPDATE CASCADE,
    UNIQUE (name, domain_name)
);
COMMENT ON TABLE groups IS 'Projects: users who work together and share a cap.';

CREATE TABLE users (
    uuid                 uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    username             varchar(64) UNIQUE,
    email                varchar(64) NOT NULL UNIQUE,
    password             text,
    need_password_change boolean     NOT NULL DEFAULT false,
    password_changed_at  timestamptz NOT NULL DEFAULT now(),
    full_name            varchar(64),
    description          varchar(500),
    status               text        NOT NULL DEFAULT 'active'
        CHECK (status IN ('active', 'inactive', 'deleted', 'before-verification')),
    status_info          text,
    created_at           timestamptz NOT NULL DEFAULT now(),
    modified_at          timestamptz NOT NULL DEFAULT now(),
    integration_id       varchar(512),
    domain_name          varchar(64) REFERENCES domains (name) ON UPDATE CASCADE,
    role                 text        NOT NULL DEFAULT 'user'
        CHECK (role IN ('superadmin', 'admin', 'user', 'monitor')),
    allowed_client_ip    text[],
    totp_key             varchar(32),
    totp_activated       boolean     NOT NULL DEFAULT false,
    totp_activated_at    timestamptz,
    resource_policy      varchar(256) NOT NULL REFERENCES user_resource_policies (name) ON UPDATE CASCADE,
    sudo_session_enabled boolean     NOT NULL DEFAULT false,
    main_access_key      varchar(20)
);
COMMENT ON COLUMN users.password IS 'A hash in PHC form (argon2id) or an older bcrypt or pbkdf2 one; NULL refuses every password.';
COMMENT ON COLUMN users.allowed_client_ip IS 'Networks in CIDR form the user may call from; NULL or empty is anywhere.';
COMMENT ON COLUMN users.main_access_key IS 'The keypair that password login hands out and whose policy limits the user.';

CREATE TABLE association_groups_users (
    user_id  uuid NOT NULL REFERENCES users (uuid) ON DELETE CASCADE,
    group_id uuid NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, group_id)
);
CREATE INDEX association_groups_users_group ON association_groups_users (group_id);

CREATE TABLE keypair_resource_policies (
    name                        varchar(256) PRIMARY KEY,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    default_for_unspecified     text        NOT NULL DEFAULT 'UNLIMITED'
        CHECK (default_for_unspecified IN ('LIMITED', 'UNLIMITED')),
    total_resource_slots        jsonb       NOT NULL DEFAULT '{}',
    max_session_lifetime        integer     NOT NULL DEFAULT 0,
    max_concurrent_sessions     integer     NOT NULL,
    max_concurrent_sftp_sessions integer    NOT NULL DEFAULT 1,
    max_containers_per_session  integer     NOT NULL,
    max_vfolder_count           integer     NOT NULL DEFAULT 0,
    max_vfolder_size            bigint      NOT NULL DEFAULT 0,
    idle_timeout                bigint      NOT NULL DEFAULT 0,
    allowed_vfolder_hosts       jsonb       NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN keypair_resource_policies.default_for_unspecified IS 'What a slot absent from total_resource_slots means: nothing (LIMITED) or no cap (UNLIMITED).';
COMMENT ON COLUMN keypair_resource_policies.max_session_lifetime IS 'Seconds; 0 is unlimited.';
COMMENT ON COLUMN keypair_resource_policies.max_concurrent_sessions IS '0 or less is unlimited.';
COMMENT ON COLUMN keypair_resource_policies.idle_timeout IS 'Seconds; 0 is never, negative takes the idle checker''s default.';

CREATE TABLE keypairs (
    access_key       varchar(20) PRIMARY KEY,
    user_id          varchar(256) NOT NULL,
    secret_key       varchar(40) NOT NULL,
    is_active        boolean     NOT NULL DEFAULT true,
    is_admin         boolean     NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT now(),
    modified_at      timestamptz NOT NULL DEFAULT now(),
    last_used        timestamptz,
    rate_limit       integer     NOT NULL DEFAULT 10000,
    num_queries      integer     NOT NULL DEFAULT 0,
    ssh_public_key   text,
    ssh_private_key  text,
    "user"           uuid        NOT NULL REFERENCES users (uuid),
    resource_policy  varchar(256) NOT NULL REFERENCES keypair_resource_policies (name) ON UPDATE CASCADE,
    dotfiles         jsonb       NOT NULL DEFAULT '[]',
    bootstrap_script varchar(65536) NOT NULL DEFAULT ''
);
COMMENT ON COLUMN keypairs.user_id IS 'The owner''s e-mail address.';
COMMENT ON COLUMN keypairs.rate_limit IS 'Calls in a rolling window of 900 s.';
CREATE INDEX keypairs_user ON keypairs ("user");
-- A user's main key and a key's owner refer to each other: checked at commit, so that one
-- fixture can bring both.
ALTER TABLE users ADD CONSTRAINT users_main_access_key FOREIGN KEY (main_access_key)
    REFERENCES keypairs (access_key) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX users_main_access_key ON users (main_access_key);

-- With what -----------------------------------------------------------------------------

CREATE TABLE scaling_groups (
    name              varchar(64) PRIMARY KEY,
    description       varchar(512),
    is_active         boolean     NOT NULL DEFAULT true,
    is_public         boolean     NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    wsproxy_addr      varchar(1024),
    wsproxy_api_token varchar(128),
    driver            varchar(64) NOT NULL DEFAULT 'static',
    driver_opts       jsonb       NOT NULL DEFAULT '{}',
    scheduler         varchar(64) NOT NULL DEFAULT 'fifo',
    use_host_network  boolean     NOT NULL DEFAULT false,
    scheduler_opts    jsonb       NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE scaling_groups IS 'Sets of agents with one scheduling policy.';

CREATE TABLE sgroups_for_domains (
    scaling_group varchar(64) NOT NULL REFERENCES scaling_groups (name) ON UPDATE CASCADE ON DELETE CASCADE,
    domain        varchar(64) NOT NULL REFERENCES domains (name) ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (scaling_group, domain)
);
CREATE TABLE sgroups_for_groups (
    scaling_group varchar(64) NOT NULL REFERENCES scaling_groups (name) ON UPDATE CASCADE ON DELETE CASCADE,
    "group"       uuid        NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (scaling_group, "group")
);
CREATE TABLE sgroups_for_keypairs (
    scaling_group varchar(64) NOT NULL REFERENCES scaling_groups (name) ON UPDATE CASCADE ON DELETE CASCADE,
    access_key    varchar(20) NOT NULL REFERENCES keypairs (access_key) ON DELETE CASCADE,
    PRIMARY KEY (scaling_group, access_key)
);

CREATE TABLE resource_presets (
    name           varchar(256) PRIMARY KEY,
    resource_slots jsonb  NOT NULL,
    shared_memory  bigint
);
COMMENT ON COLUMN resource_presets.shared_memory IS 'Bytes; NULL takes the image''s default.';

CREATE TABLE images (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name          text        NOT NULL,
    registry      text        NOT NULL,
    image         text        NOT NULL,
    tag           text        NOT NULL,
    architecture  varchar(32) NOT NULL DEFAULT 'x86_64',
    created_at    timestamptz NOT NULL DEFAULT now(),
    config_digest text        NOT NULL,
    size_bytes    bigint      NOT NULL,
    is_local      boolean     NOT NULL DEFAULT false,
    type          text        NOT NULL DEFAULT 'compute' CHECK (type IN ('compute', 'system', 'service')),
    accelerators  text,
    labels        jsonb       NOT NULL DEFAULT '{}',
    resources     jsonb       NOT NULL DEFAULT '{}',
    UNIQUE (name, architecture)
);
COMMENT ON COLUMN images.name IS 'Canonical name, registry/image:tag.';
COMMENT ON COLUMN images.config_digest IS 'sha256:… of the image configuration.';
COMMENT ON COLUMN images.resources IS '{slot: {"min": text, "max": text or null}}.';

CREATE TABLE image_aliases (
    alias text PRIMARY KEY,
    image uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE
);
CREATE INDEX image_aliases_image ON image_aliases (image);

CREATE TABLE agents (
    id              varchar(64)  PRIMARY KEY,
    status          text         NOT NULL DEFAULT 'ALIVE'
        CHECK (status IN ('ALIVE', 'LOST', 'RESTARTING', 'TERMINATED')),
    status_changed  timestamptz  NOT NULL DEFAULT now(),
    incarnation     bigint       NOT NULL DEFAULT 0,
    region          varchar(64)  NOT NULL,
    scaling_group   varchar(64)  NOT NULL REFERENCES scaling_groups (name) ON UPDATE CASCADE,
    schedulable     boolean      NOT NULL DEFAULT true,
    available_slots jsonb        NOT NULL,
    addr            varchar(128) NOT NULL,
    public_host     varchar(256),
    public_key      varchar(40),
    first_contact   timestamptz  NOT NULL DEFAULT now(),
    lost_at         timestamptz,
    version         varchar(64)  NOT NULL,
    architecture    varchar(32)  NOT NULL,
    compute_plugins jsonb        NOT NULL DEFAULT '{}',
    images          text[]       NOT NULL DEFAULT '{}',
    auto_terminate_abusing_kernel boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN agents.incarnation IS 'Changes at every start of the agent''s process.';
COMMENT ON COLUMN agents.images IS 'Canonical names its engine has.';
CREATE INDEX agents_scaling_group ON agents (scaling_group, status);

-- What runs -----------------------------------------------------------------------------

CREATE TABLE sessions (
    id               uuid         PRIMARY KEY,
    name             varchar(64)  NOT NULL,
    session_type     text         NOT NULL DEFAULT 'INTERACTIVE'
        CHECK (session_type IN ('INTERACTIVE', 'BATCH', 'INFERENCE')),
    cluster_mode     text         NOT NULL DEFAULT 'single-node'
        CHECK (cluster_mode IN ('single-node', 'multi-node')),
    cluster_size     integer      NOT NULL DEFAULT 1 CHECK (cluster_size >= 1),
    domain_name      varchar(64)  NOT NULL REFERENCES domains (name) ON UPDATE CASCADE,
    group_id         uuid         NOT NULL REFERENCES groups (id),
    user_uuid        uuid         NOT NULL REFERENCES users (uuid),
    access_key       varchar(20)  NOT NULL REFERENCES keypairs (access_key),
    scaling_group    varchar(64)  NOT NULL REFERENCES scaling_groups (name) ON UPDATE CASCADE,
    image            text         NOT NULL,
    architecture     varchar(32)  NOT NULL,
    tag              varchar(64),
    requested_slots  jsonb        NOT NULL,
    environ          jsonb        NOT NULL DEFAULT '{}',
    vfolder_mounts   jsonb        NOT NULL DEFAULT '[]',
    bootstrap_script text,
    startup_command  text,
    callback_url     text,
    cluster_ssh_keypair jsonb,
    designated_agents text[],
    is_private       boolean      NOT NULL DEFAULT false,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    starts_at        timestamptz,
    terminated_at    timestamptz,
    status           text         NOT NULL DEFAULT 'PENDING'
        CHECK (status IN ('PENDING', 'SCHEDULED', 'PULLING', 'PREPARING', 'RUNNING', 'RESTARTING',
                          'RUNNING_DEGRADED', 'TERMINATING', 'TERMINATED', 'ERROR', 'CANCELLED')),
    status_changed   timestamptz  NOT NULL DEFAULT now(),
    status_info      text,
    status_data      jsonb        NOT NULL DEFAULT '{}',
    deadline         timestamptz,
    result           text         NOT NULL DEFAULT 'UNDEFINED'
        CHECK (result IN ('UNDEFINED', 'SUCCESS', 'FAILURE')),
    num_queries      bigint       NOT NULL DEFAULT 0,
    CHECK (status NOT IN ('TERMINATED', 'CANCELLED') OR terminated_at IS NOT NULL),
    CHECK (status NOT IN ('SCHEDULED', 'PULLING', 'PREPARING', 'RESTARTING', 'TERMINATING') OR deadline IS NOT NULL)
);
COMMENT ON TABLE sessions IS 'What users asked for. status, status_*, deadline, result, terminated_at, name, tag and num_queries change; the rest is immutable. Status changes go through one function of the datastore, which also writes transitions.';
COMMENT ON COLUMN sessions.image IS 'Canonical name of the main kernel''s image.';
COMMENT ON COLUMN sessions.status_info IS 'A kebab-case reason: user-requested, failed-to-start, …';
COMMENT ON COLUMN sessions.status_data IS 'Details of the status: {"scheduler": …}, {"error": …}, {"kernel": …}.';
COMMENT ON COLUMN sessions.deadline IS 'When an in-between status must have passed; NULL in resting ones.';
COMMENT ON COLUMN sessions.is_private IS 'True for system (sftp) sessions: they count against their own limit.';
COMMENT ON COLUMN sessions.designated_agents IS 'Agents a superadmin asked for, one per kernel or one in all; NULL lets the scheduler choose.';
COMMENT ON COLUMN sessions.cluster_ssh_keypair IS '{"public_key", "private_key"} shared by the kernels of a cluster; NULL for single kernels.';
-- One live session of a name per keypair.
CREATE UNIQUE INDEX sessions_live_name ON sessions (access_key, name)
    WHERE status NOT IN ('TERMINATED', 'CANCELLED');
CREATE INDEX sessions_name ON sessions (access_key, name);
CREATE INDEX sessions_unfinished ON sessions (status, created_at)
    WHERE status NOT IN ('TERMINATED', 'CANCELLED');
-- The scheduler's queue, and what counts against a keypair's limit of sessions.
CREATE INDEX sessions_pending ON sessions (scaling_group, created_at, id) WHERE status = 'PENDING';
CREATE INDEX sessions_counted ON sessions (access_key)
    WHERE status NOT IN ('PENDING', 'TERMINATING', 'TERMINATED', 'CANCELLED');
-- Lists show the latest end or beginning first.
CREATE INDEX sessions_recent ON sessions (greatest(created_at, terminated_at) DESC, id);
CREATE INDEX sessions_recent_by_key ON sessions (access_key, greatest(created_at, terminated_at) DESC, id);

CREATE TABLE session_dependencies (
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    depends_on uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    PRIMARY KEY (session_id, depends_on)
);
CREATE INDEX session_dependencies_reverse ON session_dependencies (depends_on);

CREATE TABLE kernels (
    id               uuid         PRIMARY KEY,
    session_id       uuid         NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    cluster_role     varchar(16)  NOT NULL DEFAULT 'main',
    cluster_idx      integer      NOT NULL DEFAULT 1,
    local_rank       integer      NOT NULL DEFAULT 0,
    cluster_hostname varchar(64)  NOT NULL,
    image            text         NOT NULL,
    architecture     varchar(32)  NOT NULL,
    registry         text         NOT NULL,
    agent            varchar(64)  REFERENCES agents (id),
    container_id     varchar(64),
    kernel_host      varchar(128),
    requested_slots  jsonb        NOT NULL,
    resource_opts    jsonb        NOT NULL DEFAULT '{}',
    preopen_ports    integer[]    NOT NULL DEFAULT '{}',
    service_ports    jsonb        NOT NULL DEFAULT '[]',
    attached_devices jsonb        NOT NULL DEFAULT '{}',
    created_at       timestamptz  NOT NULL DEFAULT now(),
    started_at       timestamptz,
    terminated_at    timestamptz,
    status           text         NOT NULL DEFAULT 'PENDING'
        CHECK (status IN ('PENDING', 'SCHEDULED', 'PREPARING', 'PULLING', 'RUNNING', 'RESTARTING',
                          'TERMINATING', 'TERMINATED', 'ERROR', 'CANCELLED')),
    status_changed   timestamptz  NOT NULL DEFAULT now(),
    status_info      text,
    status_data      jsonb        NOT NULL DEFAULT '{}',
    exit_code        integer,
    last_stat        jsonb,
    UNIQUE (session_id, cluster_hostname),
    CHECK (status NOT IN ('SCHEDULED', 'PREPARING', 'PULLING', 'RUNNING', 'RESTARTING') OR agent IS NOT NULL)
);
COMMENT ON TABLE kernels IS 'Containers of sessions.';
COMMENT ON COLUMN kernels.cluster_idx IS 'From 1 within the role.';
COMMENT ON COLUMN kernels.resource_opts IS '{"shmem": bytes}.';
COMMENT ON COLUMN kernels.exit_code IS 'Exit code of the container''s main process; NULL while unknown.';
CREATE INDEX kernels_session ON kernels (session_id);
CREATE INDEX kernels_on_agent ON kernels (agent) WHERE status NOT IN ('TERMINATED', 'CANCELLED');

CREATE TABLE kernel_logs (
    kernel_id  uuid        PRIMARY KEY REFERENCES kernels (id) ON DELETE CASCADE,
    stored_at  timestamptz NOT NULL DEFAULT now(),
    content    bytea       NOT NULL
);
COMMENT ON TABLE kernel_logs IS 'The last bytes of the logs of containers that are gone.';

CREATE TABLE allocations (
    kernel_id   uuid           NOT NULL REFERENCES kernels (id) ON DELETE CASCADE,
    slot        text           NOT NULL,
    amount      numeric(38, 6) NOT NULL CHECK (amount >= 0),
    agent       varchar(64)    NOT NULL REFERENCES agents (id),
    access_key  varchar(20)    NOT NULL,
    user_uuid   uuid           NOT NULL,
    group_id    uuid           NOT NULL,
    domain_name varchar(64)    NOT NULL,
    is_private  boolean        NOT NULL DEFAULT false,
    PRIMARY KEY (kernel_id, slot)
);
COMMENT ON TABLE allocations IS 'What live kernels occupy. Inserted when scheduled, deleted when the kernel ends; every "used" figure is a sum over these rows. The owner columns repeat the session''s, which never change.';
CREATE INDEX allocations_agent ON allocations (agent);
CREATE INDEX allocations_access_key ON allocations (access_key);
CREATE INDEX allocations_user ON allocations (user_uuid);
CREATE INDEX allocations_group ON allocations (group_id);
CREATE INDEX allocations_domain ON allocations (domain_name);

CREATE TABLE transitions (
    seq         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    session_id  uuid        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    kernel_id   uuid        REFERENCES kernels (id) ON DELETE CASCADE,
    event       text        NOT NULL,
    from_status text,
    to_status   text,
    reason      text        NOT NULL DEFAULT '',
    actor       text        NOT NULL,
    exit_code   integer
);
COMMENT ON TABLE transitions IS 'Every status change, append-only: status history, SSE events, accounting and audit read it.';
COMMENT ON COLUMN transitions.xact IS 'The writing transaction. Sequence numbers may commit out of order, so a follower reads only rows whose transaction is older than every running one.';
COMMENT ON COLUMN transitions.kernel_id IS 'NULL for changes of the session itself.';
COMMENT ON COLUMN transitions.event IS 'Name on the event stream: session_scheduled, kernel_started, …';
COMMENT ON COLUMN transitions.from_status IS 'NULL for the first row of a session or kernel and for events that change no status.';
COMMENT ON COLUMN transitions.actor IS 'Who caused it: an access key, a task of the manager, or agent:<id>.';
CREATE INDEX transitions_session ON transitions (session_id, seq);
