/* CPU seconds and starts per tenant from Warren's events, in C on SQLite: ./consumer [url] [database] [--once] */
#include <nats/nats.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

static sqlite3 *db;

static void check(natsStatus status, const char *what) {
  if (status == NATS_OK) return;
  fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(status));
  exit(1);
}

static void sql(const char *text) {
  char *error = NULL;
  if (sqlite3_exec(db, text, NULL, NULL, &error) == SQLITE_OK) return;
  fprintf(stderr, "%s: %s\n", text, error);
  exit(1);
}

static sqlite3_stmt *prepare(const char *text) {
  sqlite3_stmt *statement;
  if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) == SQLITE_OK) return statement;
  fprintf(stderr, "%s: %s\n", text, sqlite3_errmsg(db));
  exit(1);
}

/* @returns how many rows it changed */
static int run(sqlite3_stmt *statement) {
  if (sqlite3_step(statement) != SQLITE_DONE) {
    fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    exit(1);
  }
  sqlite3_reset(statement);
  return sqlite3_changes(db);
}

static const char *header(natsMsg *message, const char *name) {
  const char *value = "";
  natsMsgHeader_Get(message, name, &value);
  return value;
}

int main(int argc, char **argv) {
  const char *url = argc > 1 ? argv[1] : NATS_DEFAULT_URL;
  int once = argc > 3;
  if (sqlite3_open(argc > 2 ? argv[2] : "billing.db", &db) != SQLITE_OK) return 1;
  sql("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, at INTEGER DEFAULT (unixepoch())) WITHOUT ROWID;"
      "CREATE TABLE IF NOT EXISTS cpu (tenant TEXT, instance TEXT, us INTEGER, started INTEGER,"
      "  PRIMARY KEY (tenant, instance)) WITHOUT ROWID");
  sqlite3_stmt *see = prepare("INSERT OR IGNORE INTO seen (id) VALUES (?)");
  /* Cumulative: the highest counts, in whatever order they come. */
  sqlite3_stmt *count = prepare(
      "INSERT INTO cpu SELECT ?1, ?2 ->> '$.instance.id', coalesce(CAST(?2 ->> '$.usage.cpuUs' AS INTEGER), 0),"
      "  coalesce(?2 ->> '$.from' = 'INSTANCE_STATE_STARTING' AND ?2 ->> '$.to' = 'INSTANCE_STATE_READY', 0)"
      "  WHERE ?3 IN ('dev.warren.usage', 'dev.warren.transition')"
      " ON CONFLICT DO UPDATE SET us = max(us, excluded.us), started = started + excluded.started");

  natsConnection *connection;
  jsCtx *jetstream;
  natsSubscription *subscription;
  jsSubOptions options;
  check(natsConnection_ConnectTo(&connection, url), "connecting");
  check(natsConnection_JetStream(&jetstream, connection, NULL), "JetStream");
  check(jsSubOptions_Init(&options), "options");
  options.Stream = "WARREN_EVENTS";
  options.Config.AckPolicy = js_AckExplicit;
  options.Config.AckWait = 10 * 1000000000LL;
  check(js_PullSubscribe(&subscription, jetstream, "warren.events.>", "billing-c", NULL, &options, NULL),
        "subscribing");
  for (;;) {
    natsMsgList list;
    natsStatus status = natsSubscription_Fetch(&list, subscription, 500, 2000, NULL);
    if (status == NATS_TIMEOUT) {
      jsConsumerInfo *info;
      check(natsSubscription_GetConsumerInfo(&info, subscription, NULL, NULL), "asking what is left");
      int left = (int)info->NumPending + (int)info->NumAckPending;
      jsConsumerInfo_Destroy(info);
      if (once && left == 0) break;
      continue;
    }
    check(status, "fetching");
    sql("BEGIN");
    for (int i = 0; i < list.Count; i++) {
      natsMsg *message = list.Msgs[i];
      sqlite3_bind_text(see, 1, header(message, "ce-id"), -1, SQLITE_TRANSIENT);
      if (run(see) == 0) continue; /* a repeat */
      sqlite3_bind_text(count, 1, header(message, "ce-subject"), -1, SQLITE_TRANSIENT);
      sqlite3_bind_text(count, 2, natsMsg_GetData(message), natsMsg_GetDataLength(message), SQLITE_TRANSIENT);
      sqlite3_bind_text(count, 3, header(message, "ce-type"), -1, SQLITE_TRANSIENT);
      run(count);
    }
    /* The stream keeps no event for longer than --events-keep: older ids cannot come again. */
    sql("DELETE FROM seen WHERE at < unixepoch() - 8 * 86400; COMMIT");
    /* Only now: what was not committed comes again. */
    for (int i = 0; i < list.Count; i++) check(natsMsg_AckSync(list.Msgs[i], NULL, NULL), "acknowledging");
    natsMsgList_Destroy(&list);
  }
  sqlite3_stmt *totals = prepare("SELECT tenant, sum(us) / 1e6, sum(started) FROM cpu GROUP BY tenant ORDER BY tenant");
  while (sqlite3_step(totals) == SQLITE_ROW)
    printf("%s %.6f %d\n", sqlite3_column_text(totals, 0), sqlite3_column_double(totals, 1),
           sqlite3_column_int(totals, 2));
  return 0;
}
