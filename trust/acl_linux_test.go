package trust

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAVolumeWithAnACLIsNotOurs(t *testing.T) {
	me := single()
	f := ofGroup(t, 0o775|os.ModeSetgid, me)
	if err := opens(me, f); err != nil {
		t.Fatal(err)
	}
	acl := binary.LittleEndian.AppendUint32(nil, 2) // the version of the format, then entries of tag, rights and id
	for _, entry := range []struct {
		tag, rights uint16
		id          uint32
	}{{0x01, 7, 1<<32 - 1}, {0x02, 7, 4711}, {0x04, 7, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 5, 1<<32 - 1}} {
		acl = binary.LittleEndian.AppendUint16(acl, entry.tag)
		acl = binary.LittleEndian.AppendUint16(acl, entry.rights)
		acl = binary.LittleEndian.AppendUint32(acl, entry.id)
	}
	if err := syscall.Setxattr(filepath.Dir(f), "system.posix_acl_access", acl, 0); err != nil {
		t.Fatal(err)
	}
	if err := opens(me, f); err == nil || !strings.Contains(err.Error(), "mode 0775") {
		t.Errorf("user 4711 may write there: %v", err)
	}
	if !hasACL(filepath.Join(filepath.Dir(f), "missing")) {
		t.Error("what cannot be read has no ACL")
	}
}

func TestAccountsThatCannotBeReadAreNotNone(t *testing.T) {
	if text, err := accounts(filepath.Join(t.TempDir(), "group")); text != "" || err != nil {
		t.Errorf("a missing file: %q, %v", text, err)
	}
	if _, err := accounts(t.TempDir()); err == nil {
		t.Error("a folder is read as no accounts")
	}
}
