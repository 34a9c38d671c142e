package main

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"
	kexec "k8s.io/utils/exec"
)

// A container: a process, if its spec has a command, what it printed, and who is attached to it.
type container struct {
	directory string
	log       output
	command   *exec.Cmd
	stdin     io.WriteCloser
	stdinOnce bool
	terminal  *os.File
	ended     chan struct{}
	kill      func()
}

func process(words, environment []string, directory string) *exec.Cmd {
	command := exec.Command(words[0], words[1:]...)
	command.Dir = directory
	command.Env = append(os.Environ(), environment...)
	// Nothing outlives this program, however it ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

func startContainer(spec corev1.Container, directory string) (*container, error) {
	c := &container{directory: directory, stdinOnce: spec.StdinOnce, ended: make(chan struct{}), kill: func() {}}
	c.log.changed = make(chan struct{})
	words := append(append([]string{}, spec.Command...), spec.Args...)
	if len(words) == 0 {
		return c, nil
	}
	var environment []string
	for _, variable := range spec.Env {
		environment = append(environment, variable.Name+"="+variable.Value)
	}
	c.command = process(words, environment, directory)
	if err := c.start(spec.TTY); err != nil {
		return nil, err
	}
	c.kill = func() { _ = c.command.Process.Kill() }
	return c, nil
}

func (c *container) start(tty bool) error {
	if tty {
		terminal, err := pty.Start(c.command)
		if err != nil {
			return err
		}
		c.terminal, c.stdin = terminal, terminal
		go func() {
			// Ends with an error when the process does.
			_, _ = io.Copy(&c.log, terminal)
			c.wait()
		}()
		return nil
	}
	c.command.Stdout, c.command.Stderr = &c.log, &c.log
	stdin, err := c.command.StdinPipe()
	if err != nil {
		return err
	}
	c.stdin = stdin
	if err := c.command.Start(); err != nil {
		return err
	}
	go c.wait()
	return nil
}

func (c *container) wait() {
	_ = c.command.Wait()
	c.log.end()
	close(c.ended)
}

// Gives the process what comes from the caller, and the caller what it prints from now on, until the process ends.
func (c *container) attach(in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) {
	if out != nil {
		defer c.log.subscribe(out)()
	}
	if c.terminal != nil {
		go follow(c.terminal, resize)
	}
	if in != nil && c.stdin != nil {
		go func() {
			_, _ = io.Copy(c.stdin, in)
			if c.stdinOnce {
				_ = c.stdin.Close()
			}
		}()
	}
	<-c.ended
}

// Runs a command beside the container's process.
func (c *container) run(words []string, in io.Reader, out, errors io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	command := process(words, nil, c.directory)
	if tty {
		return coded(runInTerminal(command, in, out, resize))
	}
	if out != nil {
		command.Stdout = out
	}
	if errors != nil {
		command.Stderr = errors
	}
	if in != nil {
		// Not `command.Stdin`: its end would be waited for, and callers keep it open.
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
		}()
	}
	return coded(command.Run())
}

func runInTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	terminal, err := pty.Start(command)
	if err != nil {
		return err
	}
	defer terminal.Close()
	go follow(terminal, resize)
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	_, _ = io.Copy(out, terminal)
	return command.Wait()
}

func follow(terminal *os.File, resize <-chan remotecommand.TerminalSize) {
	for size := range resize {
		_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
	}
}

// The error by which callers learn a command's exit code.
func coded(err error) error {
	if exit, is := err.(*exec.ExitError); is {
		code := exit.ExitCode()
		if status, is := exit.Sys().(syscall.WaitStatus); is && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		return kexec.CodeExitError{Err: err, Code: code}
	}
	return err
}

type line struct {
	time time.Time
	text string
}

// What a process printed, by lines, and who wants to see it as it comes.
type output struct {
	mutex       sync.Mutex
	lines       []line
	partial     []byte
	over        bool
	changed     chan struct{}
	subscribers []io.Writer
}

func (o *output) Write(bytes []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for _, subscriber := range o.subscribers {
		// One that is gone misses nothing.
		_, _ = subscriber.Write(bytes)
	}
	for _, b := range bytes {
		o.partial = append(o.partial, b)
		if b == '\n' {
			o.flush()
		}
	}
	o.announce()
	return len(bytes), nil
}

func (o *output) flush() {
	if len(o.partial) > 0 {
		o.lines = append(o.lines, line{time.Now(), string(o.partial)})
		o.partial = nil
	}
}

func (o *output) announce() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) end() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.flush()
	o.over = true
	o.announce()
}

func (o *output) subscribe(writer io.Writer) (unsubscribe func()) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.subscribers = append(o.subscribers, writer)
	return func() {
		o.mutex.Lock()
		defer o.mutex.Unlock()
		for at, subscriber := range o.subscribers {
			if subscriber == writer {
				o.subscribers = append(o.subscribers[:at:at], o.subscribers[at+1:]...)
				return
			}
		}
	}
}

// Lines from this number on, whether more may come, and what is closed when they do.
func (o *output) from(number int) ([]line, bool, <-chan struct{}) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.lines[min(number, len(o.lines)):], !o.over, o.changed
}
