package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who runs in a container, unless `docker run --user` names another: a number that no machine gives to a person.
const user = 65532

// accounts are what the image's users are called; libpq looks its own up.
const (
	passwd = "root:x:0:0:root:/root:/usr/sbin/nologin\nbackout:x:65532:65532:backout:/data:/usr/sbin/nologin\n"
	group  = "root:x:0:\nbackout:x:65532:\n"
)

// layerOf makes a layer of what write puts into an archive.
func layerOf(write func(*tar.Writer) error) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := write(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// debian writes the tree that debian.sh unpacked. All of it is root's, and no program changes its user. Only the time of a
// file comes from its package: that of a folder is when it was unpacked. The layer so changes with its packages only.
func debian(root string) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == root {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if name == "etc/passwd" || name == "etc/group" {
				return nil
			}
			h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
			switch info.Mode().Type() {
			case fs.ModeDir:
				h.Typeflag, h.Name, h.ModTime = tar.TypeDir, h.Name+"/", time.Unix(0, 0)
				if info.Mode()&fs.ModeSticky != 0 {
					h.Mode |= 0o1000
				}
				return w.WriteHeader(h)
			case fs.ModeSymlink:
				h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
				if h.Linkname, err = os.Readlink(path); err != nil {
					return err
				}
				return w.WriteHeader(h)
			case 0:
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return writeFile(w, h, content)
			default:
				return fmt.Errorf("%s is neither a file, a folder nor a link", path)
			}
		})
	}
}

// ours writes the two programs, the authorities' certificates, the accounts, and the folder of the data, which is the
// only one that belongs to the user.
func ours(program, compose string, created time.Time) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		backout, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		tool, err := os.ReadFile(compose)
		if err != nil {
			return err
		}
		for _, f := range []struct {
			name    string
			mode    int64
			content []byte
		}{
			{"etc/group", 0o644, []byte(group)},
			{"etc/passwd", 0o644, []byte(passwd)},
			{"etc/ssl/certs/ca-certificates.crt", 0o644, authorities()},
			{"usr/local/bin/backout", 0o755, backout},
			{"usr/local/bin/docker-compose", 0o755, tool},
		} {
			if err := writeFile(w, &tar.Header{Name: f.name, Mode: f.mode, ModTime: created}, f.content); err != nil {
				return err
			}
		}
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o700, Uid: user, Gid: user, ModTime: created})
	}
}

func writeFile(w *tar.Writer, h *tar.Header, content []byte) error {
	h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// authorities are Mozilla's, as go.mod pins them. Those that are trusted only in part are left out: a file of
// certificates cannot say so.
func authorities() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			all.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return all.Bytes()
}
