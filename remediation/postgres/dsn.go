package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// maxDSN bounds what is read as an address.
const maxDSN = 8 << 10

// address is where the database is, and who we are there.
type address struct {
	config   *pgx.ConnConfig
	query    url.Values
	password string
}

// known are the parameters of an address that pg_dump and scripts get too, and
// the variable of each.
func known() map[string]string {
	return map[string]string{
		"host": "PGHOST", "port": "PGPORT", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
		"sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "connect_timeout": "PGCONNECT_TIMEOUT",
	}
}

// readAddress reads a file that holds postgres://USER:PASSWORD@HOST:PORT/DATABASE.
// No error tells what is in it.
func readAddress(file string) (*address, error) {
	content, err := trust.ReadShared(file, maxDSN)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Add(fmt.Errorf("dsn_file: %s is missing", file), "write postgres://USER:PASSWORD@HOST:PORT/DATABASE into it, and chmod 600")
	}
	if err != nil {
		return nil, fmt.Errorf("dsn_file: %w", err)
	}
	a, err := parseAddress(strings.TrimSpace(string(content)))
	if err != nil {
		return nil, fmt.Errorf("dsn_file %s: %w", file, err)
	}
	return a, nil
}

func parseAddress(text string) (*address, error) {
	form := func(what string) error {
		return hint.Add(errors.New(what), "postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded")
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || strings.ContainsAny(text, " \r\n") {
		return nil, form("it has no PostgreSQL address")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, form("the address's parameters cannot be read")
	}
	for key := range query {
		if _, ok := known()[key]; !ok {
			return nil, hint.Add(fmt.Errorf("the address's parameter %q is not passed on", key),
				"sslmode, sslrootcert, sslcert, sslkey, connect_timeout, host or port only")
		}
	}
	if u.User.Username() == "" || strings.Trim(u.Path, "/") == "" {
		return nil, form("the address names no user or no database")
	}
	if strings.Contains(u.Host, ",") || strings.Contains(query.Get("host"), ",") {
		return nil, form("the address names several hosts")
	}
	if u.Host == "" && query.Get("host") == "" {
		return nil, form("the address names no host")
	}
	// What it leaves out is not taken from the environment.
	if query.Get("sslmode") == "" {
		query.Set("sslmode", "prefer")
	}
	if u.Port() == "" && query.Get("port") == "" {
		query.Set("port", "5432")
	}
	u.RawQuery = query.Encode()
	config, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, form("the address cannot be used") // the cause may quote it
	}
	if _, ok := u.User.Password(); !ok {
		config.Password = "" // not from ~/.pgpass either: programs that we start could not read it
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	return &address{config: config, query: query, password: config.Password}, nil
}

// environ are the variables by which PostgreSQL's own programs find the database.
func (a *address) environ() []string {
	env := []string{
		"PGHOST=" + a.config.Host, fmt.Sprintf("PGPORT=%d", a.config.Port), "PGUSER=" + a.config.User, "PGDATABASE=" + a.config.Database,
	}
	for key, name := range known() {
		if value := a.query.Get(key); value != "" && key != "host" && key != "port" {
			env = append(env, name+"="+value)
		}
	}
	slices.Sort(env)
	return env
}

// passLine is the line of a password file that fits every address.
func (a *address) passLine() string {
	return "*:*:*:*:" + a.escaped() + "\n"
}

func (a *address) escaped() string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(a.password)
}

// scrub takes the password out of a text.
func (a *address) scrub(text string) string {
	if len(a.password) < 3 { // no secret, and part of many words
		return text
	}
	for _, p := range []string{a.password, a.escaped(), url.QueryEscape(a.password), url.PathEscape(a.password), url.UserPassword("", a.password).String()[1:]} {
		text = strings.ReplaceAll(text, p, "[password]")
	}
	return text
}

// scrubbed is an error whose text has no password in it.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string { return e.text }
func (e *scrubbed) Unwrap() error { return e.err }

func (a *address) scrubError(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); a.scrub(text) == text {
		return err
	}
	message, try := hint.Of(err)
	return hint.Add(&scrubbed{text: a.scrub(message), err: err}, "%s", a.scrub(try))
}
