package postgres

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// maxScript bounds one script.
const maxScript = 16 << 20

// version is one of Flyway's: numbers between dots or underscores. Zeros at its
// end do not count.
type version []uint64

func parseVersion(text string) (version, error) {
	var v version
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == '.' || r == '_' }) {
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("invalid version %q", text)
		}
		v = append(v, n)
	}
	for len(v) > 1 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	if len(v) == 0 {
		return nil, fmt.Errorf("invalid version %q", text)
	}
	return v, nil
}

func (v version) compare(w version) int { return slices.Compare(v, w) }

// script is a file of a migrations folder, read once: what was looked at is what
// is run.
type script struct {
	path        string // as Flyway's history has it: below the folder
	version     version
	versionText string
	description string
	text        string
	sha256      string
	checksum    int32
	statements  []statement
	// alone: it cannot run in a transaction, or says that it must not.
	alone bool
}

// scripts are the versioned and the undo scripts of a folder, by version.
type scripts struct {
	dir            string
	versions, undo []script
}

// readScripts reads a folder and those below it, as Flyway does.
func readScripts(dir string) (*scripts, error) {
	if err := trust.Folder(dir); err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	found := &scripts{dir: dir}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		s, undo, ok := named(d.Name())
		if !ok {
			return nil
		}
		if s.version, err = parseVersion(s.versionText); err != nil {
			return fmt.Errorf("%s: %w", d.Name(), err)
		}
		if s.path, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		if err := s.read(path); err != nil {
			return err
		}
		if undo {
			found.undo = append(found.undo, s)
		} else {
			found.versions = append(found.versions, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	for _, list := range [][]script{found.versions, found.undo} {
		slices.SortFunc(list, func(a, b script) int { return a.version.compare(b.version) })
		for i := range list[:max(len(list)-1, 0)] {
			if a, b := list[i], list[i+1]; a.version.compare(b.version) == 0 {
				return nil, fmt.Errorf("migrations: %s and %s are of the same version", a.path, b.path)
			}
		}
	}
	return found, nil
}

// named takes a name such as U2.0.0__rollback_trends.sql apart.
func named(name string) (s script, undo, ok bool) {
	stem, isSQL := strings.CutSuffix(name, ".sql")
	if !isSQL || stem == "" || (stem[0] != 'V' && stem[0] != 'U') {
		return script{}, false, false
	}
	text, description, ok := strings.Cut(stem[1:], "__")
	if !ok {
		return script{}, false, false
	}
	s.versionText = strings.ReplaceAll(text, "_", ".")
	s.description = strings.ReplaceAll(description, "_", " ")
	return s, stem[0] == 'U', true
}

func (s *script) read(path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() > maxScript {
		return fmt.Errorf("%s is longer than %d MiB", path, maxScript>>20)
	}
	content, err := trust.ReadFile(path, maxScript)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	s.sha256 = hex.EncodeToString(sum[:])
	s.text = strings.TrimPrefix(string(content), "\ufeff")
	s.checksum = checksum(s.text)
	if !utf8.ValidString(s.text) || strings.ContainsRune(s.text, 0) {
		return fmt.Errorf("%s is not UTF-8 text", path)
	}
	s.statements = split(s.text)
	settings, err := trust.ReadFile(path+".conf", maxScript) // Flyway's, for this script alone
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(settings)) {
		key, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(key) == "executeInTransaction" && strings.TrimSpace(value) == "false" {
			s.alone = true
		}
	}
	s.alone = s.alone || slices.ContainsFunc(s.statements, statement.alone)
	return nil
}

// checksum is Flyway's: a CRC-32 over the lines without their ends, whichever
// those are.
func checksum(text string) int32 {
	return int32(crc32.ChecksumIEEE([]byte(strings.NewReplacer("\r", "", "\n", "").Replace(text))))
}

// runnable says why an undo script cannot be run.
func (s *script) runnable() error {
	if len(s.statements) == 0 {
		return hint.Add(fmt.Errorf("undo script %s is empty: it would undo nothing", s.path), "write the statements that undo version %s", s.versionText)
	}
	for _, st := range s.statements {
		if why := st.refused(); why != "" {
			return hint.Add(fmt.Errorf("undo script %s, line %d: %s", s.path, st.line, why), "remove it, all scripts run in one transaction where they allow it")
		}
		if strings.Contains(st.text, "${") {
			return hint.Add(fmt.Errorf("undo script %s, line %d: Flyway placeholders are not filled in here", s.path, st.line), "write its value")
		}
	}
	return nil
}

// find returns the script of a version, nil where there is none.
func find(list []script, v version) *script {
	for i := range list {
		if list[i].version.compare(v) == 0 {
			return &list[i]
		}
	}
	return nil
}

// undoPlan returns the undo scripts that take the applied versions above target
// back, the latest first, or every reason why that cannot be done.
func (s *scripts) undoPlan(h *history, target version) ([]script, error) {
	var plan []script
	var problems []error
	for _, row := range h.above(target) {
		v := find(s.versions, row.version)
		switch {
		case v == nil:
			problems = append(problems, hint.Add(fmt.Errorf("version %s is applied, but %s has no script for it (V%s__*.sql)", row.versionText, s.dir, row.versionText),
				"the folder of the release that runs"))
		case row.kind == "SQL" && row.checksum != nil && *row.checksum != v.checksum:
			problems = append(problems, hint.Add(fmt.Errorf("%s is not what was applied as version %s (checksum %d, the history has %d)", v.path, row.versionText, v.checksum, *row.checksum),
				"flyway validate"))
		}
		u := find(s.undo, row.version)
		if u == nil {
			problems = append(problems, hint.Add(fmt.Errorf("version %s has no undo script in %s", row.versionText, s.dir), "write U%s__rollback.sql", row.versionText))
			continue
		}
		if err := u.runnable(); err != nil {
			problems = append(problems, err)
		}
		u.versionText = row.versionText // as the history writes it
		plan = append(plan, *u)
	}
	slices.SortStableFunc(plan, func(a, b script) int { return cmp.Compare(0, a.version.compare(b.version)) })
	return plan, errors.Join(problems...)
}
