package alerts

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the default playbook
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// maxFile bounds a playbook's size in bytes.
const maxFile = 1 << 20

// DefaultName is what problems of the embedded playbook name as their file.
const DefaultName = "alerts/playbook.yaml"

//go:embed playbook.yaml
var defaultPlaybook []byte

// Default returns the embedded playbook: social-intel, phase 2.
func Default(kinds []ActionKind) (*Playbook, error) {
	pb, err := Parse(DefaultName, defaultPlaybook, kinds)
	if err != nil {
		return nil, err
	}
	pb.Example = true
	return pb, nil
}

// Load reads and checks a playbook's file. It refuses one that others
// can change, since a playbook names what is run. It returns all mistakes in the
// file together, as Problems.
func Load(path string, kinds []ActionKind) (*Playbook, error) {
	return whole(LoadPartly(path, kinds))
}

// LoadPartly is Load that returns the playbook with its mistakes if the rules are made of
// none of what is wrong: they can be checked, and nothing else may be done with it.
func LoadPartly(path string, kinds []ActionKind) (*Playbook, error) {
	// Before the file is read, for a better message.
	before, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Add(fmt.Errorf("read playbook: %w", err), "the path of a playbook, or begin one with backout init")
	}
	if err != nil {
		return nil, fmt.Errorf("read playbook: %w", err)
	}
	if !before.Mode().IsRegular() {
		return nil, Problems{{File: path, Message: "the playbook is not a plain file", Try: "give the path of a YAML file"}}
	}
	f, err := trust.Open(path)
	var untrusted *trust.Error
	if errors.As(err, &untrusted) {
		what := "the playbook"
		if untrusted.IsFolder {
			what = "the playbook's folder " + untrusted.Path
		}
		_, try := hint.Of(err)
		return nil, Problems{{File: path, Message: what + " " + untrusted.Problem, Try: try}}
	}
	if err != nil {
		return nil, fmt.Errorf("read playbook: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read playbook: %w", err)
	}
	return parse(path, src, kinds)
}

func whole(pb *Playbook, err error) (*Playbook, error) {
	if err != nil {
		return nil, err
	}
	return pb, nil
}

// Parse checks a playbook's text. The error has all mistakes
// together, as Problems, which name the file as name.
func Parse(name string, src []byte, kinds []ActionKind) (*Playbook, error) {
	return whole(parse(name, src, kinds))
}

func parse(name string, src []byte, kinds []ActionKind) (*Playbook, error) {
	d := newDecoder("the playbook", "begin with service: and the service's name", name)
	d.kinds = kinds
	pb := &Playbook{}
	root := d.whole(src, pb)
	if root == nil {
		return nil, d.list.Sorted()
	}
	if root.Kind == yaml.MappingNode && pb.Service == "" && slices.ContainsFunc(root.Content, func(n *yaml.Node) bool { return n.Value == "prometheus" || n.Value == "tokens" }) {
		return nil, Problems{{File: name, Line: 1, Message: "this is a configuration of backout, not a playbook", Try: "--config.file=" + name}}
	}
	pb.fillDefaults(d.pos)
	v := &validator{report: d.report, pb: pb, kinds: kinds}
	if root.Kind == yaml.MappingNode {
		v.validate()
	}
	pb.pos = d.pos
	switch {
	case len(d.list) > d.outside:
		return nil, d.list.Sorted()
	case len(d.list) > 0:
		return pb, d.list.Sorted()
	}
	sum := sha256.Sum256(src)
	pb.Hash, pb.Source = hex.EncodeToString(sum[:]), bytes.Clone(src)
	return pb, nil
}

// document returns the file's one document, or nil after a problem.
func (d *decoder) document(src []byte) *yaml.Node {
	fail := func(line int, message, try string) *yaml.Node {
		d.spoil("", line, message, try)
		return nil
	}
	if len(src) > maxFile {
		return fail(0, fmt.Sprintf("%s is larger than %d KiB", d.what, maxFile>>10), "keep anything else elsewhere")
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return fail(0, d.what+" is empty", d.begin)
	case err != nil:
		line, message := syntax(err)
		return fail(max(line, lineOf(src, err)), message, "check indentation, quotes and brackets there and just above")
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return fail(more.Line, "a second document begins here", "write one document per file, without --- in the middle")
	case !errors.Is(err, io.EOF):
		line, message := syntax(err)
		return fail(line, message, "check indentation, quotes and brackets there and just above")
	}
	if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
		return fail(0, d.what+" is empty", d.begin)
	}
	return doc.Content[0]
}

// lineOf is the first line with which the text above it has this error: the decoder itself
// names the line on which the block around the mistake begins.
func lineOf(src []byte, is error) int {
	lines := bytes.SplitAfter(src, []byte("\n"))
	ends := make([]int, len(lines))
	end := 0
	for i, l := range lines {
		end += len(l)
		ends[i] = end
	}
	return 1 + sort.Search(len(ends)-1, func(i int) bool {
		err := yaml.NewDecoder(bytes.NewReader(src[:ends[i]])).Decode(new(yaml.Node))
		return err != nil && err.Error() == is.Error()
	})
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)

// syntax takes the line out of a YAML error.
func syntax(err error) (line int, message string) {
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, "this is not YAML: " + err.Error()
	}
	if m[1] != "" {
		// The expression lets only digits through; a number too long for an
		// int leaves the line out.
		line, _ = strconv.Atoi(m[1]) //nolint:errcheck // see above
	}
	return line, "this is not YAML: " + strings.TrimSpace(m[2])
}
