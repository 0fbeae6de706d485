package postgres

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// survivors are the processes that an operation's command started and that
// still run, in whichever process group: all of them have its environment.
func survivors(tag string) []int {
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	var pids []int
	want := []byte(tagVariable + "=" + tag)
	for _, path := range found {
		environ, err := os.ReadFile(path)
		if err != nil {
			continue // someone else's, or gone
		}
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(v, want) {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

func endAll(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: as wanted
	}
}
