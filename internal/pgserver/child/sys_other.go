//go:build unix && !linux

package child

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes: there is no parent-death signal on this system, so a kill -9 of this process leaves
// the child running. The owner stops it at every other end.
func attributes(_ syscall.Signal, credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential}
}

// childrenOf asks pgrep. Children that it misses end by themselves when they find that their
// postmaster is gone.
func childrenOf(pid int) []int {
	output, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	var children []int
	for _, field := range strings.Fields(string(output)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}
