package child

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Path   string
	Args   []string  // without the name of the program
	Dir    string    // working directory
	Env    []string  // the whole environment
	Output io.Writer // standard output and error; nil discards them. Must not fail
	Input  io.Reader // standard input; nil is empty
	// Death is the signal that the child gets when this process dies; 0 is SIGKILL.
	Death syscall.Signal
	// Credential is the account to run under; nil is the one of this process.
	Credential *syscall.Credential
}

// Process is a started child. Its methods may be called from several goroutines and at any time.
type Process struct {
	// PID is the process id, which may belong to somebody else once Done is closed.
	PID  int
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	gone bool // the process id was given back
}

// Start runs a program. The kernel sends the parent-death signal when the *thread* that forked
// ends, not the process. So one goroutine is locked to its thread from the fork until the child has
// ended.
func Start(spec Spec) (*Process, error) {
	cmd := spec.command()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.PID = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("run %s: %w", filepath.Base(spec.Path), err)
	}
	return p, nil
}

func (s Spec) command() *exec.Cmd {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Dir = s.Dir
	cmd.Env = s.Env
	cmd.Stdin = s.Input
	cmd.Stdout = s.Output
	cmd.Stderr = s.Output
	death := s.Death
	if death == 0 {
		death = syscall.SIGKILL
	}
	cmd.SysProcAttr = attributes(death, s.Credential)
	// A grandchild that keeps the output open must not hold up the waiting for ever.
	cmd.WaitDelay = 15 * time.Second
	return cmd
}

func (p *Process) wait() {
	defer close(p.done)
	_ = p.cmd.Wait() // how it ended is in State
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
}

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// State says how the child ended. It waits for that.
func (p *Process) State() *os.ProcessState {
	<-p.done
	return p.cmd.ProcessState
}

// Signal sends a signal; a child that has ended gets none.
func (p *Process) Signal(sig os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		_ = p.cmd.Process.Signal(sig) // it may have ended just now
	}
}

// Kill ends the child and its direct children with SIGKILL, as a crash of the machine would, and
// waits until they are gone. The child is frozen first, so that it neither notices the death of its
// children nor forks another.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	p.Signal(syscall.SIGSTOP)
	for _, pid := range p.Children() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that has just ended is what we want
	}
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Children are the process ids of the direct children of the child.
func (p *Process) Children() []int { return childrenOf(p.PID) }
