package postgres

import "testing"

func TestWhatOutlivesARollbackIsNotTried(t *testing.T) {
	for _, text := range []string{
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop';",
		"select pg_catalog.pg_cancel_backend (17);",
		"SELECT pg_drop_replication_slot('standby');",
		"SELECT pg_reload_conf();",
		"COPY forecasts FROM PROGRAM 'curl http://example.com';",
		"COPY forecasts TO '/var/tmp/forecasts';",
		"SELECT setval('orders_id_seq', 1);",
		"SELECT set_config('lock_timeout', '0', true);",
		"SET LOCAL statement_timeout = 0;",
		"RESET lock_timeout;", "RESET ALL;",
	} {
		if !lasting.MatchString(text) {
			t.Errorf("it would be tried in production: %s", text)
		}
	}
	for _, text := range []string{
		"DROP TABLE forecasts;", "SELECT pg_catalog.set_config('search_path', '', false);", "SET search_path TO shop;",
		"ALTER TABLE orders DROP COLUMN reset_at;", "COPY forecasts FROM STDIN;", "UPDATE orders SET state = 'open' WHERE state IS NULL;",
	} {
		if what := lasting.FindString(text); what != "" {
			t.Errorf("it is not tried, for %q: %s", what, text)
		}
	}
}
