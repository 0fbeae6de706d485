package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/remediation/view"
)

func TestStatusShowsAReloadThatFailedUntilOneSucceeds(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Options{Store: memory.New(), Mode: remediation.Observe, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	broken, none := filepath.Join(t.TempDir(), "shop.yaml"), ""
	if err := os.WriteFile(broken, []byte("service: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []string{broken}
	r := &reloader{flags: settingsFlags{configFile: &none, playbookFlags: playbookFlags{playbookFiles: &files}}, engine: e}
	shown := func() (text string) {
		o, err := e.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range view.NewStatus(o).NeedsPerson() {
			if l.Subject == "configuration" {
				text += l.Text
			}
		}
		return text
	}
	if got := shown(); got != "" {
		t.Errorf("before any reload it shows %q", got)
	}
	if r.reload(t.Context(), "") == nil {
		t.Fatal("a broken playbook was taken over")
	}
	if got := shown(); !strings.Contains(got, broken) || !strings.Contains(got, "; backout runs with what was loaded at ") {
		t.Errorf("it shows %q", got)
	}
	if e.NoteReload(nil); shown() != "" {
		t.Error("it shows a failure that is over")
	}
}

func TestAReloadNamesEverySettingThatOnlyAStartReads(t *testing.T) {
	applied := []string{"ExternalURL", "Tokens"} // by a reload
	all := reflect.TypeFor[config.Config]()
	for i := range all.NumField() {
		f := all.Field(i)
		if f.Type == reflect.TypeFor[config.Outgoing]() { // only a file sets it
			continue
		}
		changed := config.Default()
		switch v := reflect.ValueOf(changed).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString("another")
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		default:
			t.Fatalf("%s is of a kind that this test cannot change: %s", f.Name, v.Kind())
		}
		named := fixedAtStart(config.Default(), changed)
		key, _, _ := strings.Cut(f.Tag.Get("config"), ".")
		if slices.Contains(applied, f.Name) {
			continue
		}
		if !slices.Equal(named, []string{key}) {
			t.Errorf("a change of %s (%s) is named %q", f.Name, f.Tag.Get("config"), named)
		}
	}
	if named := fixedAtStart(config.Default(), config.Default()); len(named) > 0 {
		t.Errorf("nothing has changed, and it names %q", named)
	}
}
