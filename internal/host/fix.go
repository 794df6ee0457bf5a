package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/progress"
)

// phase is the name under which Fix tells of its work.
const phase = "host"

// Fixes is what Fix would do for the checks: the packages it installs, and what it does then, for a person.
func Fixes(checks []Check) (packages, doings []string) {
	for _, c := range checks {
		if c.State == OK {
			continue
		}
		for _, p := range c.Packages {
			if !slices.Contains(packages, p) {
				packages = append(packages, p)
			}
		}
		if c.Fix != nil {
			doings = append(doings, c.Doing)
		}
	}
	return packages, doings
}

// Fix installs and starts what the checks say is missing and can be mended from here, and says what it is going to do before
// it does it. It needs root. Checks that it can do nothing about are left: ask again afterwards.
func Fix(ctx context.Context, checks []Check) error {
	packages, doings := Fixes(checks)
	if len(packages)+len(doings) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		var all []string
		if len(packages) > 0 {
			all = append(all, "install "+strings.Join(packages, " "))
		}
		return fault.New(fault.Missing, "root's rights are needed to %s", strings.Join(append(all, doings...), ", ")).
			WithRemedy("run it by sudo: sudo env PATH=\"$PATH\" %s", strings.Join(os.Args, " "))
	}
	if len(packages) > 0 {
		if err := install(ctx, packages); err != nil {
			return err
		}
	}
	for _, c := range checks {
		if c.State == OK || c.Fix == nil {
			continue
		}
		progress.Emit(ctx, progress.Event{Phase: phase, Unit: c.Name, Message: c.Doing})
		if err := c.Fix(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.Doing, err)
		}
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Done: true})
	return nil
}

// Wake starts libvirt where it is wanted and installed, and nothing runs it, as its library does by itself for a user's session.
// It says whether there was something to start. Without root's rights there is not.
func Wake(ctx context.Context, checks []Check) (bool, error) {
	for _, c := range checks {
		if c.Name == "libvirt" && c.State == Missing && len(c.Packages) == 0 && c.Fix != nil && os.Geteuid() == 0 {
			return true, Fix(ctx, []Check{c})
		}
	}
	return false, nil
}

// install is apt's, with the packages' own dependencies and nothing they merely recommend.
func install(ctx context.Context, packages []string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fault.New(fault.Missing, "there is no apt-get to install %s with", strings.Join(packages, " ")).
			WithRemedy("install %s by this distribution's own means", strings.Join(packages, ", "))
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Unit: "apt", Message: "install the packages " + strings.Join(packages, " ")})
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	return apt(ctx, append([]string{"install", "--yes", "--no-install-recommends"}, packages...)...)
}

// apt runs apt-get, tells of each package as it is unpacked, and keeps the last lines for the error.
func apt(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=120"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	// Asked to end, apt ends between two packages; killed, it leaves dpkg half done.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	var last []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			line := lines.Text()
			last = append(last[max(0, len(last)-19):], line)
			if strings.HasPrefix(line, "Setting up ") || strings.HasPrefix(line, "Get:") {
				progress.Emit(ctx, progress.Event{Phase: phase, Unit: "apt", Message: line})
			}
		}
		io.Copy(io.Discard, reader)
	}()
	err := cmd.Run()
	writer.Close()
	<-read
	if err != nil {
		return &fault.Error{Code: fault.Failed, Message: fmt.Sprintf("apt-get %s: %v", strings.Join(args, " "), err), Log: node.LastLines(strings.Join(last, "\n"), 10),
			Remedy: "see that this machine's package sources answer", Err: err}
	}
	return nil
}

// startEngine starts the engine by systemd, or, where there is none, by itself: in a session of its own, so that it outlives
// toastdev, with its log and its process id under the home. It returns when the engine answers.
func startEngine(ctx context.Context, f Facts) error {
	if engine(ctx, exec.LookPath).State == EngineRunning { // its package has started it
		return nil
	}
	var log string
	var ended chan error
	if f.Init == "systemd" {
		if out, err := exec.CommandContext(ctx, "systemctl", "enable", "--now", "docker.service").CombinedOutput(); err != nil {
			return &fault.Error{Code: fault.Failed, Unit: "docker.service", Message: "systemctl enable --now: " + err.Error(), Log: node.LastLines(string(out), 10),
				Remedy: "see what `journalctl -u docker` says", Err: err}
		}
	} else {
		log = filepath.Join(f.Home, "dockerd.log")
		var err error
		if ended, err = startDaemon(f.Home, "dockerd", false); err != nil {
			return err
		}
	}
	err := node.Wait(ctx, "the container engine to answer", time.Minute, func(ctx context.Context) (bool, error) {
		select {
		case err := <-ended:
			return true, fmt.Errorf("dockerd has ended: %w", err)
		default:
		}
		e := engine(ctx, exec.LookPath)
		switch e.State {
		case EngineRunning:
			return true, nil
		case EngineDenied:
			return true, errors.New(e.Reason)
		}
		return false, errors.New(e.Reason)
	})
	if err != nil && log != "" {
		text, _ := os.ReadFile(log)
		return &fault.Error{Code: fault.CodeOf(err), Unit: "dockerd", Message: err.Error(), Log: node.LastLines(string(text), 10), Remedy: "read " + log, Err: err}
	}
	return err
}

// startDaemon starts a daemon in a session of its own, so that it outlives toastdev, with its log and its process id under the
// home. Without KVM it finds no /dev/kvm.
func startDaemon(home, name string, withoutKVM bool) (ended chan error, err error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(home, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(name)
	if withoutKVM {
		// In a mount namespace that sees what the host mounts later.
		cmd = exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-c", withoutKVMScript, name)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ended = make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit code 0")
		}
		ended <- err
	}()
	pid := strconv.Itoa(cmd.Process.Pid) + "\n"
	if err := os.WriteFile(filepath.Join(home, name+".pid"), []byte(pid), 0o600); err != nil {
		return nil, err
	}
	return ended, nil
}

func setSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value+"\n"), 0o644)
}
