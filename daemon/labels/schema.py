"""The labels' schema: the tables of ``labels.sqlite``, and how a file of an earlier version is brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from daemon.common.sqlite_file import Versions

#: One script a version. Files of before there were versions have what the first makes. No comment in them may hold the
#: sign that ends a statement.
MIGRATIONS = (
    """
    create table if not exists labels (
        number integer primary key,
        path   text not null,
        curve  integer not null,
        sha256 text,
        label  text not null check (label in ('keep', 'discard', 'unsure')),
        rater  text not null,
        reason text not null,
        time   text not null,           -- UTC, RFC 3339: sorts as text
        extra  text not null            -- JSON: the other columns of an imported table
    ) strict;
    create index if not exists labels_by_path on labels (path, curve);
    create index if not exists labels_by_content on labels (sha256, curve);
    create view if not exists current as
        select *, row_number() over (partition by coalesce(sha256, 'path ' || path), curve, rater
                                     order by time desc, number desc) = 1 as is_last from labels;
    """,
    # Tombstones, and the folder of a curve that is known by its path alone.
    """
    alter table labels add column folder text;
    alter table labels add column removed_by text;   -- who took the label back: the row is a tombstone
    alter table labels add column undone text;       -- when the tombstone itself was taken back, UTC
    drop view current;
    create view current as
        select *, row_number() over (
            partition by coalesce(sha256, 'path ' || coalesce(folder || '/', '') || path), curve, rater
            order by time desc, number desc
        ) = 1 as is_last from labels where undone is null;
    """,
    # The decision that a label is on and how its curve was chosen, what a person was shown, and sessions.
    """
    alter table labels add column stream text;       -- identity of the ledger that seq counts in
    alter table labels add column seq integer;
    alter table labels add column model text;
    alter table labels add column pipeline text;
    alter table labels add column verdict text;
    alter table labels add column score real;
    alter table labels add column queue text;
    alter table labels add column weight real;       -- 1 / probability with which the curve was drawn
    alter table labels add column session integer;
    create index labels_undone on labels (number) where undone is not null;
    create table shown (
        rater    text not null,
        stream   text not null,
        seq      integer not null,
        kind     text not null check (kind in ('plain', 'golden', 'repeat', 'skip')),
        queue    text not null,
        time     text not null,         -- UTC, RFC 3339
        answer   text,                  -- to a golden curve or a repeat, which never becomes a label
        expected text,
        primary key (rater, stream, seq, kind)
    ) strict, without rowid;
    create table sessions (
        number    integer primary key,
        name      text not null,
        tip       text not null,
        sample    text not null,
        operator  text not null,
        note      text not null,
        goal      text not null,
        origin    text not null check (origin in ('person', 'folder')),
        began     text not null,        -- UTC, RFC 3339
        ended     text,
        stream    text not null,        -- identity of the ledger that the rest counts in, '' before there was one
        first_seq integer not null,
        last_seq  integer,
        before    text not null,        -- JSON: decisions by verdict before the first of it
        after     text                  -- JSON: the same up to its last one
    ) strict;
    create table sheets (
        number   integer primary key,
        kind     text not null check (kind in ('uniform', 'weighted')),
        stream   text not null,         -- identity of the ledger that was drawn from
        sample   text not null,         -- the group of sessions
        made     text not null,         -- UTC, RFC 3339
        decided  integer not null,      -- decisions that could have been drawn
        goal     integer not null,      -- confirmed events at which it ends
        heaviest real not null          -- 1 / the least chance that a discard had
    ) strict;
    create table sheet_curves (
        sheet  integer not null references sheets (number),
        place  integer not null,        -- in the order of the draw
        seq    integer not null,
        chance real not null,           -- with which it was drawn
        rater  text,                    -- who answered and whose last word it is, '' where it is gone
        primary key (sheet, place)
    ) strict, without rowid;
    """,
)


#: The application is "AFML".
VERSIONS = Versions(0x41464D4C, MIGRATIONS, "holds no labels of afm-triage: name another --state folder", unmarked=True)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply what the file has not seen yet, within the caller's transaction."""
    version = VERSIONS.of(connection, path)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        for statement in script.split(";"):
            connection.execute(statement)
        connection.execute(f"pragma application_id = {VERSIONS.application}")
        connection.execute(f"pragma user_version = {number}")
