package trust

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ofGroup makes a folder that belongs to root, if we are, and to a group; it returns a file in it.
func ofGroup(t *testing.T, mode os.FileMode, group user) string {
	t.Helper()
	dir := filepath.Join(place(t), "volume")
	f := put(t, filepath.Join(dir, "f"), 0o644)
	if err := os.Chown(dir, -1, int(group)); err != nil {
		t.Fatal(err)
	}
	chmod(t, dir, mode)
	return f
}

// single returns a user whose group is its own: of nobody's number for root, and otherwise us, as Debian makes users.
func single() user {
	if me := us(); me != 0 {
		return me
	}
	return 65532
}

// opens opens as somebody a file that root made.
func opens(me user, path string) error {
	f, err := me.open(path, read, os.O_RDONLY, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}

func TestAVolumeOfAGroupThatIsOursAloneIsOurs(t *testing.T) {
	me := single()
	if err := opens(me, ofGroup(t, 0o775|os.ModeSetgid, me)); err != nil {
		t.Error(err)
	}
	if err := opens(me, ofGroup(t, 0o775, me)); err == nil || !strings.Contains(err.Error(), "mode 0775") {
		t.Errorf("no volume of an fsGroup, without its setgid bit: %v", err)
	}
	if err := opens(me, ofGroup(t, 0o777|os.ModeSetgid, me)); err == nil || !strings.Contains(err.Error(), "mode 0777") {
		t.Errorf("a volume that all can write: %v", err)
	}
	dir := filepath.Dir(ofGroup(t, 0o755, me))
	f := put(t, filepath.Join(dir, "open"), 0o664)
	if err := os.Chown(f, -1, int(me)); err != nil {
		t.Fatal(err)
	}
	if err := opens(me, f); err == nil || !strings.Contains(err.Error(), "mode 0664") {
		t.Errorf("a file that the group can write: %v", err)
	}
}

func TestAGroupWithAnotherMemberIsNotOursAlone(t *testing.T) {
	const users = "root:x:0:0::/root:/bin/sh\nbackout:x:65532:65532::/data:\n"
	for name, tc := range map[string]struct {
		groups, users string
		want          bool
	}{
		"as in the image":               {"root:x:0:\nbackout:x:65532:\n", users, true},
		"no accounts":                   {"", "", true},
		"a member":                      {"backout:x:65532:ann\n", users, false},
		"another user's first group":    {"backout:x:65532:\n", users + "ann:x:1000:65532::/:\n", false},
		"a member of another group":     {"backout:x:65532:\nstaff:x:50:ann\n", users, true},
		"a member, and no line's end":   {"backout:x:65532:ann", users, false},
		"a number that ends like it":    {"wheel:x:165532:ann\n", users, true},
		"a group without its last part": {"backout:x:65532\n", users, true},
	} {
		if got := sole("65532", tc.groups, tc.users); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestAVolumeOfAnotherGroupIsNotOurs(t *testing.T) {
	me := single()
	if err := opens(me+1, ofGroup(t, 0o775|os.ModeSetgid, me)); err == nil {
		t.Error("a volume of another group is ours")
	}
}
