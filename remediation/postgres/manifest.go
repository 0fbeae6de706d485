package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/locotoki/backout/hint"
)

// phase is how far an operation is.
type phase string

// The phases, in their order. Where all scripts run in one transaction, dumped
// lasts until it is known to be committed: the database reports whether it is.
const (
	begun    phase = "begun"
	cutOff   phase = "cut_off"
	dumped   phase = "dumped"
	changing phase = "changing" // by a command, or by a script outside of a transaction
	changed  phase = "changed"
	finished phase = "finished"
	undone   phase = "undone"
)

// manifest is an operation's own memory: a file in the folder of the snapshots.
type manifest struct {
	Op      string `json:"op"`
	Service string `json:"service"`
	// Attempt counts how often the operation was begun anew after it was undone.
	Attempt int      `json:"attempt"`
	Phase   phase    `json:"phase"`
	Plan    snapshot `json:"plan"` // what was looked at before anything was changed
	Dump    *dump    `json:"dump,omitempty"`
	// Rows that are not known yet are nil; an empty list says that there is no table.
	Before []rows `json:"rows_before"`
	After  []rows `json:"rows_after"`
	// Running is the version whose undo script runs outside of a transaction.
	Running string `json:"running,omitempty"`
	// Mark is what the database was like before the snapshot, then before what has no
	// transaction began.
	Mark []mark   `json:"mark,omitempty"`
	Run  *command `json:"run,omitempty"`
}

// dump is a snapshot that pg_dump wrote and pg_restore can read.
type dump struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// command is what became of the playbook's command.
type command struct {
	Log  string `json:"log"`
	Exit *int   `json:"exit,omitempty"` // absent: not known
}

// open reports whether the operation has begun and not ended.
func (m *manifest) open() bool { return m != nil && m.Phase != finished && m.Phase != undone }

// base is the beginning of the names of an operation's files.
func (r *rollback) base(op string) string {
	plain := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-@", c) {
			return c
		}
		return '_'
	}, r.spec.Service+"-"+op)
	return filepath.Join(r.c.dir, plain)
}

// file names one of the files of the present attempt.
func (w *work) file(extension string) string {
	return fmt.Sprintf("%s-%d%s", w.base(w.op), w.m.Attempt, extension)
}

func (r *rollback) load(op string) (*manifest, error) {
	m, err := readManifest(r.base(op) + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && m.Op != op {
		err = fmt.Errorf("%s is of operation %s", r.base(op)+".json", m.Op)
	}
	return m, err
}

func readManifest(path string) (*manifest, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m := &manifest{}
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, hint.Add(fmt.Errorf("manifest %s: %w", path, err), "inspect the database, bring it to one version, and move the file away")
	}
	return m, nil
}

// others returns the operations that have begun and not ended, but for this one, by their
// files. One on another service's schema may have disconnected a role of this one.
func (r *rollback) others(op string) (map[string]*manifest, error) {
	paths, err := filepath.Glob(filepath.Join(r.c.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	all := map[string]*manifest{}
	for _, path := range paths {
		m, err := readManifest(path)
		if err != nil {
			return nil, err
		}
		if (m.Op != op || m.Service != r.spec.Service) && m.open() {
			all[path] = m
		}
	}
	return all, nil
}

// save writes the manifest with what do changes in it, so that a crash leaves
// the old one or the new one.
func (w *work) save(ctx context.Context, do func(m *manifest)) error {
	next := *w.m
	do(&next)
	raw, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	err = w.c.seams.do(ctx, "manifest "+string(next.Phase), func(context.Context) error {
		if err := os.MkdirAll(w.c.dir, 0o700); err != nil {
			return err
		}
		return writeFile(w.base(w.op)+".json", append(raw, '\n'))
	})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	w.m = &next
	w.c.logger.Info("schema rollback", "service", w.spec.Service, "operation", w.op, "phase", string(next.Phase))
	return nil
}

// writeFile replaces a file as a whole, and waits for the disk.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if all went well
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return rename(f.Name(), path)
}

// rename waits until the new name is on the disk.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
