// Command image writes backout's container image as an archive, without an engine: a layer of Debian's packages, and one
// of backout with the compose tool. The archive is an OCI image layout which also has the manifest.json that older engines
// ask for, so that `docker load`, `podman load` and `skopeo copy oci-archive:` take it. build.sh calls it.
//
// The same input gives the same bytes.
package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

type input struct {
	arch, version, revision  string
	created                  int64 // seconds since 1970
	debian, program, compose string
	output                   string
}

func main() {
	var in input
	flag.StringVar(&in.arch, "arch", "", "amd64 or arm64")
	flag.StringVar(&in.version, "version", "", "the image's tag, and its label")
	flag.StringVar(&in.revision, "revision", "", "the commit")
	flag.Int64Var(&in.created, "created", 0, "the commit's time, in seconds since 1970")
	flag.StringVar(&in.debian, "debian", "", "the folder of the unpacked packages")
	flag.StringVar(&in.program, "program", "", "backout's file")
	flag.StringVar(&in.compose, "compose", "", "the compose tool's file")
	flag.StringVar(&in.output, "output", "", "the archive to write")
	flag.Parse()
	if err := in.write(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func (in input) write() (err error) {
	img, err := in.image()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": in.version})); err != nil {
		return err
	}
	manifest, err := in.manifest(img)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644); err != nil {
		return err
	}
	return archive(dir, in.output, time.Unix(in.created, 0))
}

func (in input) image() (v1.Image, error) {
	created := time.Unix(in.created, 0).UTC()
	base, err := layerOf(debian(in.debian))
	if err != nil {
		return nil, err
	}
	own, err := layerOf(ours(in.program, in.compose, created))
	if err != nil {
		return nil, err
	}
	// PostgreSQL's client has a folder that is named after its version.
	client, err := filepath.Glob(filepath.Join(in.debian, "usr/lib/postgresql/*/bin"))
	if err != nil || len(client) != 1 {
		return nil, fmt.Errorf("%s has %d versions of PostgreSQL's client, not one", in.debian, len(client))
	}
	bin, err := filepath.Rel(in.debian, client[0])
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img,
		mutate.Addendum{Layer: base, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "Debian's packages"}},
		mutate.Addendum{Layer: own, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "backout " + in.version}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", in.arch, v1.Time{Time: created}
	config.Config = v1.Config{
		User:         strconv.Itoa(user) + ":" + strconv.Itoa(user),
		Env:          []string{"PATH=/usr/local/bin:/usr/bin:/" + filepath.ToSlash(bin)},
		Entrypoint:   []string{"/usr/local/bin/backout"},
		Cmd:          []string{"serve"},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"9099/tcp": {}, "9098/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "backout",
			"org.opencontainers.image.source":   "https://github.com/locotoki/backout",
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.version":  in.version,
			"org.opencontainers.image.revision": in.revision,
		},
	}
	return mutate.ConfigFile(img, config)
}

// manifest is what an engine before 25.0 reads instead of the OCI layout's index.
func (in input) manifest(img v1.Image) ([]byte, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	e := entry{Config: blob(m.Config.Digest), RepoTags: []string{"backout:" + in.version}}
	for _, l := range m.Layers {
		e.Layers = append(e.Layers, blob(l.Digest))
	}
	return json.Marshal([]entry{e})
}

// archive writes the files of a folder, in the order of their names.
func archive(dir, output string, created time.Time) (err error) {
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(w, &tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, ModTime: created}, content)
	})
	return errors.Join(err, w.Close())
}
