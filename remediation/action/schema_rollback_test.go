package action

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// schemas notes what it is asked for.
type schemas struct{ asked []remediation.SchemaRollback }

func (s *schemas) Rollback(r remediation.SchemaRollback) (remediation.Action, error) {
	s.asked = append(s.asked, r)
	return nil, nil
}

// runs is a service whose replicas run one version.
type runs struct {
	Images
	version string
}

func (r runs) Runs(_ context.Context, _ alerts.Target, image, version string) error {
	if image != "" || version != r.version {
		return &remediation.VersionError{Versions: []string{version}, Err: errors.New("web-1 runs " + r.version + ", not " + version)}
	}
	return nil
}

func TestSchemaRollbackBindsWhatThePlaybookSays(t *testing.T) {
	db := &schemas{}
	k := schemaRollback{db, runs{version: "v1.0.0"}, "/var/lib/backout/snapshots"}
	pb := playbook()
	pb.Release = alerts.Release{Version: "v2.0.0", Previous: "v1.0.0"}
	_, err := k.Bind(pb, &schemaRollbackParams{
		DSNFile: "/d", ApplicationRoles: []string{"app"}, Command: []string{"./x", "y"}, Dir: "/m", Wanted: "SELECT true", Restartable: true,
		Tables: []string{"posts"}, LockTimeout: model.Duration(time.Second), StatementTimeout: model.Duration(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	if loses := k.Loses(pb, &schemaRollbackParams{Command: []string{"./x"}}); !strings.Contains(loses, "a snapshot of the whole database is taken first in /var/lib/backout/snapshots,") {
		t.Errorf("it does not say where the snapshot is: %s", loses)
	}
	got := db.asked[0]
	if got.Service != "social-intel" || got.Version != "v1.0.0" || got.DSNFile != "/d" || got.Roles[0] != "app" || got.Command[1] != "y" || got.Dir != "/m" ||
		got.Wanted != "SELECT true" || !got.Restartable || got.Tables[0] != "posts" || got.LockTimeout != time.Second || got.StatementTimeout != time.Minute || got.Flyway != nil {
		t.Errorf("asked for %+v", got)
	}
	if err := got.Tolerated(t.Context()); err != nil {
		t.Errorf("the previous version is not tolerated: %v", err)
	}
	if _, err := k.Bind(pb, &schemaRollbackParams{Flyway: &flywayParams{Dir: "/m", Version: "1", DSNFile: "/f"}}); err != nil {
		t.Fatal(err)
	}
	if got := db.asked[1]; *got.Flyway != (remediation.Flyway{Dir: "/m", Version: "1"}) || got.DSNFile != "/f" {
		t.Errorf("asked for %+v", got)
	}
}

func TestCodeThatDoesNotTolerateTheOlderSchemaHoldsItsRollback(t *testing.T) {
	pb := playbook()
	pb.Release = alerts.Release{Version: "v2.0.0", Previous: "v1.0.0"}
	for _, c := range []struct {
		images Images
		with   []string
		want   string
	}{
		{runs{version: "v1.0.0"}, nil, ""},
		{runs{version: "v2.0.0"}, nil, "web-1 runs v2.0.0, not v1.0.0; try: image_retag before schema_rollback"},
		{runs{version: "v1.1.0"}, []string{"v1.0.0", "v1.1.0"}, ""},
		{runs{version: "v1.0.0"}, []string{"v1.1.0"}, "web-1 runs v1.0.0, not v1.1.0"},
		{nil, nil, "the running version is unknown"},
	} {
		db := &schemas{}
		if _, err := (schemaRollback{db, c.images, ""}).Bind(pb, &schemaRollbackParams{RunsWith: c.with}); err != nil {
			t.Fatal(err)
		}
		err := db.asked[0].Tolerated(t.Context())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
		// What image_retag would leave running is the previous version, whatever runs now.
		var wants *remediation.VersionError
		ahead := err == nil || errors.As(err, &wants) && slices.Contains(wants.Versions, imageRetag{c.images}.Version(pb, &imageRetagParams{}))
		if ahead == (c.images == nil || slices.Equal(c.with, []string{"v1.1.0"})) {
			t.Errorf("%+v: ahead of image_retag: %v", c, err)
		}
	}
}

// unseen is a service of which nobody can say what runs.
type unseen struct {
	Images
	err error
}

func (u unseen) Runs(context.Context, alerts.Target, string, string) error { return u.err }

func TestAVersionThatNobodyCouldSeeIsNoOtherVersion(t *testing.T) {
	db := &schemas{}
	if _, err := (schemaRollback{db, unseen{err: remediation.InDoubt(context.DeadlineExceeded)}, ""}).Bind(playbook(), &schemaRollbackParams{}); err != nil {
		t.Fatal(err)
	}
	err := db.asked[0].Tolerated(t.Context())
	var seen *remediation.VersionError
	if !remediation.MarkedInDoubt(err) || !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &seen) {
		t.Errorf("%T: %v", err, err)
	}
}
