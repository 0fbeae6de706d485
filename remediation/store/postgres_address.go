package store

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

const (
	// defaultSchema is where the tables are, unless search_path in the dsn says otherwise.
	defaultSchema = "backout"
	// connectTimeout bounds one attempt to connect, unless connect_timeout is shorter.
	connectTimeout = 5 * time.Second
	// maxPassfile bounds what is read as a password file, in bytes.
	maxPassfile = 64 << 10
)

// parameters of an address that are passed on; another one is refused, since it
// may be one of these misspelled.
var parameters = []string{
	"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "passfile", "target_session_attrs", "search_path",
}

// schemaName is what can be a schema's name without quotes.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// newPostgres reads postgres://USER@HOST:PORT/DATABASE. It does not connect. No error
// repeats what is in the address: it may hold a password.
func newPostgres(dsn string) (*postgres, error) {
	u, query, err := splitAddress(dsn)
	if err != nil {
		return nil, err
	}
	p := &postgres{schema: cmp.Or(query.Get("search_path"), defaultSchema), leaseTime: leaseTime, patience: answerTimeout}
	if !schemaName.MatchString(p.schema) {
		return nil, hint.Add(errors.New("the storage dsn's search_path is not the name of one schema"), "search_path=backout")
	}
	query.Del("search_path")
	if file := query.Get("passfile"); file != "" {
		if _, err := trust.ReadSecret(file, maxPassfile); err != nil {
			return nil, hint.Add(fmt.Errorf("the storage dsn's passfile: %w", err), "a file of lines HOST:PORT:DATABASE:USER:PASSWORD that only its owner can read")
		}
	}
	// What the address leaves out is not taken from the environment, but for the password.
	for key, value := range map[string]string{"sslmode": "prefer", "target_session_attrs": "any"} {
		if query.Get(key) == "" {
			query.Set(key, value)
		}
	}
	if u.Port() == "" && query.Get("port") == "" && !strings.Contains(u.Host, ",") {
		query.Set("port", "5432")
	}
	u.RawQuery = query.Encode()
	if p.config, err = pgx.ParseConfig(u.String()); err != nil {
		return nil, wrongDSN("the storage dsn is not an address of PostgreSQL that can be used") // the cause may quote it
	}
	if p.config.ConnectTimeout <= 0 || p.config.ConnectTimeout > connectTimeout {
		p.config.ConnectTimeout = connectTimeout
	}
	return p, nil
}

func splitAddress(dsn string) (*url.URL, url.Values, error) {
	u, err := url.Parse(dsn)
	if err != nil || strings.ContainsAny(dsn, " \r\n") {
		return nil, nil, wrongDSN("the storage dsn is not an address of PostgreSQL")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, wrongDSN("the storage dsn's parameters cannot be read")
	}
	for key := range query {
		if !slices.Contains(parameters, key) {
			return nil, nil, hint.Add(fmt.Errorf("unknown parameter %.40q in the storage dsn", key), "one of %s", strings.Join(parameters, ", "))
		}
	}
	if u.User.Username() == "" || strings.Trim(u.Path, "/") == "" || u.Host == "" && query.Get("host") == "" {
		return nil, nil, wrongDSN("the storage dsn names no user, no host or no database")
	}
	return u, query, nil
}

// HoldsPassword reports whether a dsn has a password in it, which a command line
// shows to every user of the machine.
func HoldsPassword(dsn string) bool {
	if !isPostgres(dsn) {
		return false
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return strings.Contains(dsn, "@") // it cannot be used either
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password")
}

// String implements database.
func (p *postgres) String() string {
	return fmt.Sprintf("PostgreSQL database %s/%s, schema %s",
		net.JoinHostPort(p.config.Host, strconv.Itoa(int(p.config.Port))), p.config.Database, p.schema)
}
