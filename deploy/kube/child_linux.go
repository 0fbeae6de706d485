package kube

import "syscall"

// ChildAttributes puts a child into a process group of its own, and has the
// kernel end it should its parent be killed.
func ChildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
