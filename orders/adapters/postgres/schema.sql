-- Version 1 of the schema; every name is looked up in the schema that the store's URL names.

-- The version of what is here, and which cluster it is in. A dump that was restored into another
-- cluster meets transaction ids that begin anew: then the era is raised.
create table meta (
    is_only boolean primary key default true check (is_only),
    version integer not null,
    era integer not null,
    system_identifier bigint not null
);

-- The log: a row is a commit, or a change of deliveries. Its place is (era, xid, seq), and all
-- that is below the oldest transaction under way can be read in this order, once and whole.
create table record (
    era integer not null,
    xid bigint not null default pg_current_xact_id()::text::bigint,
    seq integer not null default 0,  -- among the records of one transaction
    time timestamptz not null,
    about text[] collate "C" not null,  -- ids of messages, conversations, orders, delivered events
    kinds text[] collate "C" not null,  -- names of messages and subscribers
    body json not null,  -- messages, deliveries, states, process
    primary key (era, xid, seq)
);
create index record_about on record using gin (about) with (fastupdate = off);

-- Every thousandth record, with how many orders were placed before its transaction: so neither
-- records nor orders are ever counted from the first.
create table milestone (
    number bigint primary key,
    era integer not null,
    xid bigint not null,
    seq integer not null,
    orders bigint not null
);
create unique index milestone_place on milestone (era, xid, seq);

-- What the log makes of each order.
create table orders (
    id text collate "C" primary key,
    version integer not null,
    status text collate "C" not null,
    placed_at timestamptz not null,
    customer text not null,  -- case folded, to search
    items text not null,  -- same, each on a line of its own
    key text collate "C" unique,
    state json not null,
    era integer not null,  -- the place in the log where it was placed
    xid bigint not null default pg_current_xact_id()::text::bigint,
    place bigint not null  -- among the orders of one transaction
);
create index orders_newest on orders (era, xid, place);
create index orders_status on orders (status, era, xid, place);
create index orders_placed_at on orders (placed_at);

-- What the log makes of each delivery. Whoever holds the advisory lock `owner` is making it.
create sequence delivery_queue;
create table delivery (
    event text collate "C" not null,
    subscriber text collate "C" not null,
    status text collate "C" not null,
    body text not null,  -- compared as it is written
    owner bigint,
    number bigint generated always as identity,
    queued bigint not null default nextval('delivery_queue'),  -- when it became pending
    since timestamptz not null,
    changed timestamptz not null,
    primary key (event, subscriber)
);
create unique index delivery_number on delivery (number);
create index delivery_pending on delivery (queued) where status = 'pending';
create index delivery_unsettled on delivery (number) where status <> 'done';

-- The tables of each projection, with the place in the log that they are made of.
create table snapshot (
    name text collate "C" primary key,
    cursor bigint[] not null,
    tables json not null
);

-- Who is at work: the lease of each process is a session's advisory lock.
create view lease as
    select (classid::bigint << 32) | objid::bigint as owner, pid
    from pg_locks
    where locktype = 'advisory' and objsubid = 1 and mode = 'ExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database());

-- Whether anybody listens: whoever does shares an advisory lock, which then nobody else can have.
create function is_heard() returns boolean
language sql as $$
    select case when pg_try_advisory_lock('record'::regclass::oid::integer, 0)
        then not pg_advisory_unlock('record'::regclass::oid::integer, 0) else true end
$$;

create function number_at(p_era integer, p_xid bigint, p_seq integer) returns bigint
language sql stable as $$
    with before as (
        (select number, era, xid, seq from milestone
        where (era, xid, seq) <= (p_era, p_xid, p_seq)
        order by era desc, xid desc, seq desc limit 1)
        union all select 0, 0, 0, 0
        limit 1
    )
    select before.number + (
        select count(*) from record
        where (era, xid, seq) > (before.era, before.xid, before.seq)
            and (era, xid, seq) <= (p_era, p_xid, p_seq)
    )
    from before
$$;

create function add_milestones(p_era integer, p_every integer) returns bigint
language sql as $$
    with before as (
        (select number, era, xid, seq, orders from milestone order by number desc limit 1)
        union all select 0, 0, 0, 0, 0
        limit 1
    ),
    numbered as (
        select record.era, record.xid, record.seq,
            before.number + row_number() over (order by record.era, record.xid, record.seq) as number
        from before, record
        where (record.era, record.xid, record.seq) > (before.era, before.xid, before.seq)
            and (record.era, record.xid)
                < (p_era, pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
    ),
    marked as (
        select numbered.*, before.orders,
            lag(numbered.era, 1, before.era) over (order by numbered.number) as era_before,
            lag(numbered.xid, 1, before.xid) over (order by numbered.number) as xid_before
        from numbered, before where numbered.number % p_every = 0
    ),
    counted as (
        select marked.*, (
            select count(*) from orders
            where (orders.era, orders.xid) >= (era_before, xid_before)
                and (orders.era, orders.xid) < (marked.era, marked.xid)
        ) as since
        from marked
    ),
    added as (
        insert into milestone (number, era, xid, seq, orders)
        select number, era, xid, seq, orders + sum(since) over (order by number) from counted
        on conflict do nothing
        returning 1
    )
    select count(*) from added
$$;

-- A commit, in one round trip and one transaction. It takes its transaction id here, after all
-- that it builds on was read: so the versions of an order stand in the log in their order.
-- None is seen before it is on the disk: a server that crashes gives the ids of those that are not
-- to others, which whoever has read the first would never read.
create function store_commit(p_commit json, p_body json) returns bigint
language plpgsql as $$
declare
    moment constant timestamptz := clock_timestamp();
    given record;
    change record;
    part record;
    first text;
    taken bigint;
begin
    select * into given from json_to_record(p_commit) as x(
        era integer, owner bigint, about text[], kinds text[], changes json, parts json
    );
    -- New orders as they come, others by id: two who change the same do not wait in a circle.
    if given.changes is not null then  -- even to look through none costs a twentieth
        for change in
            select * from json_to_recordset(given.changes) as x(
                id text, version integer, status text, placed_at timestamptz, customer text,
                items text, state text, key text, expected integer, place bigint
            )
            order by expected > 0, case when expected > 0 then id end, place
        loop
            if change.expected = 0 then
                if change.key is not null then
                    select id into first from orders where id = change.key and id <> change.id;
                    if found then
                        raise exception 'key % is taken', change.key
                            using errcode = 'OR002', detail = json_build_array(change.key, first);
                    end if;
                end if;
                insert into orders
                    (id, version, status, placed_at, customer, items, state, key, era, place)
                values (
                    change.id, change.version, change.status, change.placed_at, change.customer,
                    change.items, change.state::json, change.key, given.era, change.place
                )
                on conflict do nothing;
            else
                update orders set
                    version = change.version, status = change.status, customer = change.customer,
                    items = change.items, state = change.state::json
                where id = change.id and version = change.expected;
            end if;
            if not found then
                select id into first from orders where key = change.key;
                if found and first <> change.id then
                    raise exception 'key % is taken', change.key
                        using errcode = 'OR002', detail = json_build_array(change.key, first);
                end if;
                raise exception 'order % was changed by somebody else', change.id
                    using errcode = 'OR001', detail = json_build_array(
                        change.id, change.expected,
                        coalesce((select version from orders where id = change.id), 0)
                    );
            end if;
        end loop;
    end if;
    for part in
        select * from json_to_recordset(given.parts)
            as x(event text, subscriber text, kind text, status text, body text)
    loop
        if part.kind = 'outcome' then
            update delivery
            set status = part.status, body = part.body, owner = null, changed = moment
            where event = part.event and subscriber = part.subscriber and status = 'pending';
        elsif part.kind = 'reaction' then
            insert into delivery (event, subscriber, status, body, owner, since, changed)
            values (
                part.event, part.subscriber, part.status, part.body,
                case part.status when 'pending' then given.owner end, moment, moment
            )
            on conflict do nothing;
        else
            insert into delivery (event, subscriber, status, body, owner, since, changed)
            values (
                part.event, part.subscriber, part.status, part.body, given.owner, moment, moment
            )
            on conflict (event, subscriber) do update
            set status = excluded.status, body = excluded.body, owner = excluded.owner,
                changed = moment, queued = excluded.queued;
        end if;
        if not found then
            raise exception 'the delivery of % to % is settled', part.event, part.subscriber
                using errcode = 'OR003', detail = json_build_array(part.event, part.subscriber);
        end if;
    end loop;
    insert into record (era, time, about, kinds, body)
    values (given.era, moment, given.about, given.kinds, p_body)
    returning xid into taken;
    return taken;
end
$$;

-- Compare and set: whoever finds the delivery as it stands, and nobody at it, makes it.
create function claim_delivery(
    p_era integer, p_owner bigint, p_event text, p_subscriber text, p_found text, p_attempt text,
    p_about text[], p_kinds text[], p_body text
) returns boolean
language plpgsql as $$
declare
    moment constant timestamptz := clock_timestamp();
begin
    update delivery
    set status = 'pending', body = p_attempt, owner = p_owner, changed = moment,
        queued = nextval('delivery_queue')
    where event = p_event and subscriber = p_subscriber and body = p_found
        and (status <> 'pending'
            or not exists (select from lease where lease.owner = delivery.owner));
    if not found then
        return false;
    end if;
    insert into record (era, time, about, kinds, body)
    values (p_era, moment, p_about, p_kinds, p_body::json);
    return true;
end
$$;
