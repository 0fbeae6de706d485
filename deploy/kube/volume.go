package kube

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// securityContext is what a node carries out of a pod's and a container's: for an image with a root of its own.
type securityContext struct {
	RunAsUser, RunAsGroup, FSGroup *int
}

type volume struct {
	Name                  string
	ConfigMap             *files
	Secret                *files
	EmptyDir              *struct{}
	PersistentVolumeClaim *struct{ ClaimName string }
	Projected             *struct {
		DefaultMode os.FileMode
		Sources     []struct {
			ServiceAccountToken *struct {
				Path              string
				ExpirationSeconds int
			}
			ConfigMap   *files
			DownwardAPI *struct {
				Items []struct {
					Path     string
					FieldRef struct{ FieldPath string }
				}
			}
		}
	}
}

// files are the keys of a config map or a secret.
type files struct {
	Name, SecretName string
	DefaultMode      os.FileMode
	Optional         bool
	Items            []struct{ Key, Path string }
}

type mount struct {
	Name, MountPath, SubPath string
}

// root makes the root folder of a container: the files of its image, its volumes, and nothing else. A restart of the
// container finds it as it was.
//
// Owners and modes are the kubelet's (pkg/volume): the folder of a volume can be written by all, but that of a claim only
// by root; both by fsGroup, if there is one, to which they then belong. A file is root's; so are the folders on the way to a
// mount, as those of an image are.
func (r *running) root(i int, image Image) (string, error) {
	if dir := r.roots[i]; dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp(r.node.dir, "root-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), r.fill(dir, i, image)); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	r.roots[i] = dir
	return dir, nil
}

func (r *running) fill(dir string, i int, image Image) error {
	for inside, source := range image.Root {
		at := filepath.Join(dir, inside)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if os.Link(source, at) == nil {
			continue
		}
		info, err := os.Stat(source) // it is on another file system
		if err != nil {
			return err
		}
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(at, content, info.Mode()); err != nil {
			return err
		}
	}
	for _, m := range r.pod.Spec.Containers[i].VolumeMounts {
		if err := r.mount(dir, m); err != nil {
			return fmt.Errorf("volume %s: %w", m.Name, err)
		}
	}
	return nil
}

func (r *running) mount(root string, m mount) error {
	at := filepath.Join(root, m.MountPath)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	for _, v := range r.pod.Spec.Volumes {
		if v.Name != m.Name {
			continue
		}
		if v.PersistentVolumeClaim != nil {
			return r.claimed(at, v.PersistentVolumeClaim.ClaimName)
		}
		content, mode, err := r.content(v)
		if err != nil {
			return err
		}
		if m.SubPath != "" {
			text, ok := content[m.SubPath]
			if !ok {
				return fmt.Errorf("subPath %s: no such key", m.SubPath)
			}
			return r.file(at, text, mode)
		}
		if err := r.folder(at, 0o777); err != nil {
			return err
		}
		for name, text := range content {
			if err := r.file(filepath.Join(at, name), text, mode); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no such volume")
}

// claimed moves the folder of a claim, which outlives its pods, into the root: only one pod at a time has it.
func (r *running) claimed(at, claim string) error {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	was, ok := r.node.claims[claim]
	r.node.claims[claim] = at
	if ok {
		return os.Rename(was, at)
	}
	return r.folder(at, 0o755)
}

func (r *running) folder(at string, mode os.FileMode) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	group := -1
	if g := r.pod.Spec.SecurityContext.FSGroup; g != nil {
		group, mode = *g, mode|0o770|os.ModeSetgid
	}
	if err := os.Chown(at, 0, group); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}

func (r *running) file(at, text string, mode os.FileMode) error {
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		return err
	}
	group := -1
	if g := r.pod.Spec.SecurityContext.FSGroup; g != nil {
		group, mode = *g, mode|0o440
	}
	if err := os.Chown(at, 0, group); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}

// content is what the files of a volume hold, by path.
func (r *running) content(v volume) (map[string]string, os.FileMode, error) {
	switch {
	case v.EmptyDir != nil:
		return nil, 0, nil
	case v.ConfigMap != nil:
		content, err := r.keys("configmaps", v.ConfigMap)
		return content, v.ConfigMap.DefaultMode, err
	case v.Secret != nil:
		content, err := r.keys("secrets", v.Secret)
		return content, v.Secret.DefaultMode, err
	case v.Projected == nil:
		return nil, 0, fmt.Errorf("not a kind that this node knows")
	}
	all := map[string]string{}
	for _, s := range v.Projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			client, err := r.node.client.ServiceAccount(r.ctx, r.pod.Metadata.Namespace, r.pod.Spec.ServiceAccountName)
			if err != nil {
				return nil, 0, err
			}
			all[s.ServiceAccountToken.Path] = client.Token
		case s.ConfigMap != nil:
			content, err := r.keys("configmaps", s.ConfigMap)
			if err != nil {
				return nil, 0, err
			}
			for path, text := range content {
				all[path] = text
			}
		case s.DownwardAPI != nil:
			for _, item := range s.DownwardAPI.Items {
				text, err := r.field(item.FieldRef.FieldPath)
				if err != nil {
					return nil, 0, err
				}
				all[item.Path] = text
			}
		}
	}
	return all, v.Projected.DefaultMode, nil
}

func (r *running) keys(kind string, f *files) (map[string]string, error) {
	ref := &reference{Name: f.Name + f.SecretName, Optional: f.Optional}
	data, err := r.data(kind, ref)
	if err != nil || len(f.Items) == 0 {
		return data, err
	}
	content := map[string]string{}
	for _, item := range f.Items {
		text, ok := data[item.Key]
		if !ok {
			return nil, &Error{http.StatusNotFound, "NotFound", fmt.Sprintf("%s has no key %s", ref.Name, item.Key)}
		}
		content[item.Path] = text
	}
	return content, nil
}

// confine makes a program run in a root folder, as the user of its security context, which has no right of root's.
func (r *running) confine(attributes *syscall.SysProcAttr, c *container, root string) {
	attributes.Chroot = root
	pod, own := r.pod.Spec.SecurityContext, c.SecurityContext
	number := func(of ...*int) uint32 {
		for _, n := range of {
			if n != nil {
				return uint32(*n)
			}
		}
		return 0
	}
	attributes.Credential = &syscall.Credential{Uid: number(own.RunAsUser, pod.RunAsUser), Gid: number(own.RunAsGroup, pod.RunAsGroup)}
	if pod.FSGroup != nil {
		attributes.Credential.Groups = []uint32{uint32(*pod.FSGroup)}
	}
}
