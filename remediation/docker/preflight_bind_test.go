package docker

import "testing"

func TestWhatIsStartedAsideWritesIntoNoFolderAndRelabelsNone(t *testing.T) {
	for bind, want := range map[string]string{
		"/srv/data:/data":             "/srv/data:/data:ro",
		"/srv/data:/data:rw":          "/srv/data:/data:ro",
		"data:/data:ro":               "data:/data:ro",
		"/srv/data:/data:Z":           "/srv/data:/data:ro",
		"/srv/data:/data:rw,z,rslave": "/srv/data:/data:ro,rslave",
	} {
		if got := readOnly(bind); got != want {
			t.Errorf("%s became %s, want %s", bind, got, want)
		}
	}
}
