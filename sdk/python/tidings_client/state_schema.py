"""The state file's tables and every SQL statement over them.

A file belongs to one device of one user. `application_id` tells it from other SQLite files; `user_version` is the schema's
version, and `MIGRATIONS[n]` leads from version n to n + 1.
"""

APPLICATION_ID = 0x54444E47  # "TDNG"

MIGRATIONS = [
    """
    CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE conversation (
        conversation_id TEXT PRIMARY KEY,
        position        INTEGER,                     -- kept up to here; NULL: nothing yet
        changed         INTEGER NOT NULL DEFAULT 0,  -- grows with each change of position, over all conversations
        read_seq        INTEGER NOT NULL DEFAULT 0,  -- one's own read mark
        read_confirmed  INTEGER NOT NULL DEFAULT 1,  -- whether the server has it
        own_seq         INTEGER NOT NULL DEFAULT 0,  -- highest message of one's own
        delivered_upto  INTEGER NOT NULL DEFAULT 0,  -- own messages declared delivered
        read_upto       INTEGER NOT NULL DEFAULT 0,  -- own messages declared read
        description     BLOB                         -- encoded Conversation, as last heard
    ) WITHOUT ROWID;

    CREATE TABLE entry (
        conversation_id TEXT NOT NULL,
        seq             INTEGER NOT NULL,
        arrival         INTEGER,        -- order in which messages() gives them; NULL: read from history only
        sender_id       TEXT NOT NULL,
        client_msg_id   TEXT NOT NULL,
        shown           INTEGER NOT NULL, -- 1: history() shows it; 0: an edit, a deletion, or unknown
        entry           BLOB NOT NULL,  -- encoded LogEntry
        PRIMARY KEY (conversation_id, seq)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX entry_by_arrival ON entry (arrival) WHERE arrival IS NOT NULL;

    CREATE TABLE amendment (            -- what became of a message; it may be known before the message is
        conversation_id TEXT NOT NULL,
        target_seq      INTEGER NOT NULL,
        seq             INTEGER NOT NULL, -- of the edit or deletion
        content         BLOB,             -- NULL: deleted
        PRIMARY KEY (conversation_id, target_seq)
    ) WITHOUT ROWID;

    CREATE TABLE outgoing (
        number        INTEGER PRIMARY KEY AUTOINCREMENT,
        client_msg_id TEXT NOT NULL UNIQUE,
        target        TEXT NOT NULL,
        frame         BLOB NOT NULL,    -- encoded ClientFrame
        error         BLOB              -- encoded Error: refused for good
    );
    """,
    """
    CREATE TABLE notification (           -- times are milliseconds since 1970 by the server's clock
        number          INTEGER PRIMARY KEY AUTOINCREMENT,  -- order in which they came
        notification_id TEXT NOT NULL UNIQUE,
        received        INTEGER NOT NULL,
        expires         INTEGER NOT NULL, -- from then on it is void
        shown           INTEGER,          -- when the application got it; NULL: not yet
        notification    BLOB              -- encoded Notification, until it is shown
    );
    CREATE INDEX notification_waiting ON notification (number, expires) WHERE shown IS NULL;
    CREATE INDEX notification_by_expiry ON notification (expires);
    """,
]

GET_IDENTITY = "SELECT value FROM identity WHERE name = ?"
PUT_IDENTITY = "INSERT INTO identity (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

GET_POSITION = "SELECT position FROM conversation WHERE conversation_id = ?"
PUT_POSITION = """
    INSERT INTO conversation (conversation_id, position, changed) VALUES (?, ?, ?)
    ON CONFLICT (conversation_id) DO UPDATE SET position = excluded.position, changed = excluded.changed"""
PUT_OWN = "UPDATE conversation SET own_seq = ? WHERE conversation_id = ? AND own_seq < ?"
NEWEST_POSITIONS = """
    SELECT conversation_id, position FROM conversation WHERE position IS NOT NULL ORDER BY changed DESC LIMIT ?"""
HIGHEST_ARRIVAL = "SELECT max((SELECT coalesce(max(arrival), 0) FROM entry), (SELECT coalesce(max(changed), 0) FROM conversation))"

PUT_ENTRY = """
    INSERT INTO entry (conversation_id, seq, arrival, sender_id, client_msg_id, shown, entry) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (conversation_id, seq) DO UPDATE SET arrival = excluded.arrival WHERE entry.arrival IS NULL"""
ARRIVED_AFTER = "SELECT arrival, entry FROM entry WHERE arrival > ? ORDER BY arrival LIMIT ?"
FORGET_ARRIVED = "DELETE FROM entry WHERE arrival <= ?"
GET_ENTRY = "SELECT entry FROM entry WHERE conversation_id = ? AND seq = ?"
REPLACE_ENTRY = "UPDATE entry SET entry = ? WHERE conversation_id = ? AND seq = ?"
ENTRIES_BEFORE = """
    SELECT e.seq, e.shown, e.entry, a.seq, a.content
    FROM entry e LEFT JOIN amendment a ON a.conversation_id = e.conversation_id AND a.target_seq = e.seq
    WHERE e.conversation_id = ? AND e.seq < ? ORDER BY e.seq DESC LIMIT ?"""
ENTRIES_AFTER = """
    SELECT e.seq, e.shown, e.entry, a.seq, a.content
    FROM entry e LEFT JOIN amendment a ON a.conversation_id = e.conversation_id AND a.target_seq = e.seq
    WHERE e.conversation_id = ? AND e.seq > ? ORDER BY e.seq LIMIT ?"""
OWN_UNREAD = """
    SELECT seq, client_msg_id FROM entry
    WHERE conversation_id = ? AND seq > ? AND sender_id = ? AND shown = 1 ORDER BY seq DESC LIMIT ?"""
UNREAD_BY_OTHERS = "SELECT conversation_id FROM conversation WHERE own_seq > read_upto ORDER BY changed DESC LIMIT ?"

PUT_AMENDMENT = """
    INSERT INTO amendment (conversation_id, target_seq, seq, content) VALUES (?, ?, ?, ?)
    ON CONFLICT (conversation_id, target_seq) DO UPDATE SET seq = excluded.seq, content = excluded.content
    WHERE excluded.seq > amendment.seq"""

GET_PROGRESS = "SELECT delivered_upto, read_upto, description FROM conversation WHERE conversation_id = ?"
PUT_PROGRESS = """
    INSERT INTO conversation (conversation_id, delivered_upto, read_upto) VALUES (?, ?, ?)
    ON CONFLICT (conversation_id) DO UPDATE SET delivered_upto = excluded.delivered_upto, read_upto = excluded.read_upto"""
PUT_DESCRIPTION = """
    INSERT INTO conversation (conversation_id, description) VALUES (?, ?)
    ON CONFLICT (conversation_id) DO UPDATE SET description = excluded.description"""
PUT_READ_MARK = """
    INSERT INTO conversation (conversation_id, read_seq, read_confirmed) VALUES (?, ?, 0)
    ON CONFLICT (conversation_id) DO UPDATE SET read_seq = excluded.read_seq, read_confirmed = 0"""
CONFIRM_READ_MARK = "UPDATE conversation SET read_confirmed = 1 WHERE conversation_id = ? AND read_seq = ?"
UNCONFIRMED_READ_MARKS = "SELECT conversation_id, read_seq FROM conversation WHERE read_confirmed = 0"

INSERT_OUTGOING = "INSERT OR REPLACE INTO outgoing (client_msg_id, target, frame) VALUES (?, ?, ?)"
DELETE_OUTGOING = "DELETE FROM outgoing WHERE client_msg_id = ?"
FAIL_OUTGOING = "UPDATE outgoing SET error = ? WHERE client_msg_id = ?"
FORGET_FAILED = """
    DELETE FROM outgoing WHERE error IS NOT NULL AND number <= (
        SELECT number FROM outgoing WHERE error IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?)"""
UNSENT_OUTGOING = "SELECT number, client_msg_id, target, frame FROM outgoing WHERE error IS NULL ORDER BY number"
FAILED_OUTGOING = "SELECT client_msg_id, target, frame, error FROM outgoing WHERE error IS NOT NULL ORDER BY number"

PUT_NOTIFICATION = """
    INSERT INTO notification (notification_id, received, expires, notification) VALUES (?, ?, ?, ?)
    ON CONFLICT (notification_id) DO NOTHING"""
GET_NOTIFICATION = "SELECT expires, shown FROM notification WHERE notification_id = ?"
COUNT_WAITING_NOTIFICATIONS = "SELECT count(*) FROM notification WHERE shown IS NULL AND expires > ?"
NEXT_NOTIFICATION = """
    SELECT number, notification FROM notification WHERE shown IS NULL AND expires > ? ORDER BY number LIMIT 1"""
SHOW_NOTIFICATION = "UPDATE notification SET shown = ?, notification = NULL WHERE number = ?"
FORGET_EXPIRED_NOTIFICATIONS = "DELETE FROM notification WHERE expires < ?"
FORGET_OLD_NOTIFICATIONS = """
    DELETE FROM notification WHERE shown IS NOT NULL AND number <= (SELECT max(number) FROM notification) - ?"""
