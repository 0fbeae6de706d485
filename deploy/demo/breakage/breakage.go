// Package breakage is how the demo and the tests make the demo's social-intel
// fail: a file next to the compose project, which outlives any recreation of the
// container and takes effect within a moment, without a restart.
package breakage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Breakage is what is wrong with the service. The zero value: nothing is.
type Breakage struct {
	// Errors is the share of the feature's requests that fail, 0 to 1.
	Errors float64 `json:"errors,omitempty"`
	// Latency is added to each of the feature's requests.
	Latency time.Duration `json:"latency,omitempty"`
	// Slow is the share of them that it is added to; 0 means all of them.
	Slow float64 `json:"slow,omitempty"`
	// P1 is the share of the feature's requests that do harm of the first priority,
	// which their answer does not show.
	P1 float64 `json:"p1,omitempty"`
	// CPU, Memory and DatabaseCPU are the shares that are used of what there is while
	// the feature is on; 0: as usual.
	CPU         float64 `json:"cpu,omitempty"`
	Memory      float64 `json:"memory,omitempty"`
	DatabaseCPU float64 `json:"database_cpu,omitempty"`
	// DespiteFlag breaks the service whether its feature's flag is on or off.
	DespiteFlag bool `json:"despite_flag,omitempty"`
	// QuietWhenOff ends the feature's requests once its flag is off.
	QuietWhenOff bool `json:"quiet_when_off,omitempty"`
	// Version limits the breakage to one version's code; "" breaks every one.
	Version string `json:"version,omitempty"`
}

// Read returns what the file says; without a file, nothing is broken.
func Read(path string) (Breakage, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Breakage{}, nil
	}
	if err != nil {
		return Breakage{}, fmt.Errorf("read breakage: %w", err)
	}
	var b Breakage
	if err := json.Unmarshal(text, &b); err != nil {
		return Breakage{}, fmt.Errorf("read breakage %s: %w", path, err)
	}
	return b, nil
}

// Write replaces the file atomically, so that no reader sees half of it.
func Write(path string, b Breakage) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("write breakage: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".breakage-*")
	if err != nil {
		return fmt.Errorf("write breakage: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write breakage: %w", err), os.Remove(f.Name()))
	}
	return nil
}
