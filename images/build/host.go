package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/toast-cloud/toastdev/internal/fault"
)

// host is what a build takes from this machine: its ways to Debian's archive and to Python's index.
type host struct {
	Sources  []source
	APT      []setting
	Auth     []byte            // APT's passwords (auth.conf)
	Pip      map[string]string // PIP_* variables
	Proxies  map[string]string
	CABundle string // a file; "" when there is none
}

// lookAtHost reads the host's configuration, for a build of a suite.
func lookAtHost(ctx context.Context, suite string) (*host, error) {
	h := &host{Proxies: proxyVariables(os.Environ())}
	files := map[string]string{}
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		readAll(files, pattern)
	}
	h.Sources = debianSources(files, suite)
	passwords := map[string]string{}
	readAll(passwords, "/etc/apt/auth.conf")
	readAll(passwords, "/etc/apt/auth.conf.d/*.conf")
	for _, name := range sortedKeys(passwords) {
		h.Auth = append(h.Auth, strings.TrimSpace(passwords[name])+"\n"...)
	}
	if dump, err := exec.CommandContext(ctx, "apt-config", "dump").Output(); err == nil {
		for _, s := range aptSettings(string(dump)) {
			if s.isProxyProgram() {
				s = setting{"Acquire::http::Proxy", proxyOf(ctx, s.Value, h.Sources[0].URI)}
			}
			if s.Value != "" {
				h.APT = append(h.APT, s)
			}
		}
	}
	var pip []string
	config := os.Getenv("XDG_CONFIG_HOME")
	user, _ := os.UserHomeDir() // without one there is no file of the user's
	if config == "" {
		config = filepath.Join(user, ".config")
	}
	for _, name := range []string{"/etc/xdg/pip/pip.conf", "/etc/pip.conf", filepath.Join(user, ".pip/pip.conf"),
		filepath.Join(config, "pip/pip.conf"), os.Getenv("PIP_CONFIG_FILE")} {
		if text, err := os.ReadFile(name); err == nil {
			pip = append(pip, string(text))
		}
	}
	h.Pip = pipEnvironment(pip, os.Environ())
	for _, name := range []string{os.Getenv("SSL_CERT_FILE"), os.Getenv("REQUESTS_CA_BUNDLE"), os.Getenv("CURL_CA_BUNDLE"), h.Pip["PIP_CERT"],
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"} {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			h.CABundle = name
			break
		}
	}
	return h, nil
}

func readAll(files map[string]string, pattern string) {
	names, _ := filepath.Glob(pattern) // the patterns are our own
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil {
			files[name] = string(text)
		}
	}
}

// proxyOf asks the host's program for the proxy to a URI; "" when it fails, as APT then goes without.
func proxyOf(ctx context.Context, program, uri string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, uri).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Where the build's own things lie in its container: on a tmpfs, and so never in an image.
const workDir = "/mnt"

// inContainer is the inheritance as a build container has it: files by their path below workDir, bind mounts, and variables
// for the commands that need the network. Nothing of it is in /etc or in the container's configuration.
func (h *host) inContainer() (files map[string][]byte, binds []string, env []string, err error) {
	files = map[string][]byte{}
	// carry copies a file of the host's and is its path in the container.
	carry := func(name string) (string, error) {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		carried := fmt.Sprintf("host/%d-%s", len(files), path.Base(name))
		files[carried] = content
		return path.Join(workDir, carried), nil
	}
	var sources strings.Builder
	for _, s := range h.Sources {
		options := map[string]string{}
		for name, value := range s.Options {
			if name == "signed-by" && strings.HasPrefix(value, "/") && value != debianKeys {
				if value, err = carry(value); err != nil {
					return nil, nil, nil, fmt.Errorf("read the key of %s: %w", s.URI, err)
				}
			}
			options[name] = value
		}
		s.Options = options
		if dir, ok := localDir(s.URI); ok {
			mounted := fmt.Sprintf("%s/mirror-%d", workDir, len(binds))
			binds = append(binds, dir+":"+mounted+":ro")
			s.URI = "file:" + mounted
		}
		fmt.Fprintln(&sources, s)
	}
	files["apt/sources.list"] = []byte(sources.String())

	conf := []setting{
		{"Dir::Etc::sourcelist", workDir + "/apt/sources.list"}, {"Dir::Etc::sourceparts", "-"},
		{"Dir::Etc::netrc", workDir + "/apt/auth.conf"}, {"Dir::Etc::netrcparts", "-"},
	}
	conf = append(conf, patience...)
	ca := ""
	if h.CABundle != "" {
		if ca, err = carry(h.CABundle); err != nil {
			return nil, nil, nil, fmt.Errorf("read the host's certificates: %w", err)
		}
		conf = append(conf, setting{"Acquire::https::CaInfo", ca})
		env = append(env, "SSL_CERT_FILE="+ca, "REQUESTS_CA_BUNDLE="+ca)
	}
	for _, s := range h.APT {
		if strings.HasPrefix(s.Value, "/") {
			if s.Value, err = carry(s.Value); err != nil {
				return nil, nil, nil, fmt.Errorf("read the file that APT's %s names: %w", s.Name, err)
			}
		}
		conf = append(conf, s)
	}
	files["apt/apt.conf"] = aptConf(conf)
	files["apt/auth.conf"] = h.Auth
	env = append(env, "APT_CONFIG="+workDir+"/apt/apt.conf", "PIP_CONFIG_FILE=/dev/null")

	pip := map[string]string{"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
	if ca != "" {
		pip["PIP_CERT"] = ca
	}
	for name, value := range h.Pip {
		switch name {
		case "PIP_CERT", "PIP_CLIENT_CERT":
			if value, err = carry(value); err != nil {
				return nil, nil, nil, fmt.Errorf("read the file that pip's %s names: %w", name, err)
			}
		case "PIP_FIND_LINKS":
			var links []string
			for _, link := range strings.Fields(value) {
				if dir, ok := localDir(link); ok {
					if _, err := os.Stat(dir); err != nil {
						continue
					}
					mounted := fmt.Sprintf("%s/links-%d", workDir, len(binds))
					binds = append(binds, dir+":"+mounted+":ro")
					link = mounted
				}
				links = append(links, link)
			}
			value = strings.Join(links, " ")
		}
		if value != "" {
			pip[name] = value
		}
	}
	for _, vars := range []map[string]string{pip, h.Proxies} {
		for _, name := range sortedKeys(vars) {
			env = append(env, name+"="+vars[name])
		}
	}
	return files, binds, env, nil
}

// localDir is the folder that a file: address or a path means.
func localDir(address string) (string, bool) {
	for _, scheme := range []string{"file://", "file:", "copy://", "copy:"} {
		if dir, ok := strings.CutPrefix(address, scheme); ok {
			return dir, true
		}
	}
	return address, strings.HasPrefix(address, "/")
}

// patience is how long APT tries where the host does not say: long enough for a hiccup, short enough to say soon that
// there is no mirror.
var patience = []setting{{"Acquire::Retries", "2"}, {"Acquire::http::Timeout", "15"}, {"Acquire::https::Timeout", "15"}}

func aptConf(settings []setting) []byte {
	var b bytes.Buffer
	for _, s := range settings {
		fmt.Fprintf(&b, "%s %q;\n", s.Name, s.Value)
	}
	return b.Bytes()
}

// traces is what must not be found in an image: the host's addresses and what else of it names no default.
func (h *host) traces() []string {
	var traces []string
	for _, s := range h.Sources {
		if !strings.Contains(s.URI, "://deb.debian.org/") {
			traces = append(traces, s.URI)
		}
	}
	for _, s := range h.APT {
		if strings.Contains(s.Value, "://") {
			traces = append(traces, s.Value)
		}
	}
	for name, value := range h.Pip {
		if strings.HasSuffix(name, "URL") || name == "PIP_PROXY" {
			traces = append(traces, strings.Fields(value)...)
		}
	}
	for name, value := range h.Proxies {
		if !strings.EqualFold(name, "no_proxy") {
			traces = append(traces, value)
		}
	}
	for line := range strings.Lines(string(h.Auth)) {
		if fields := strings.Fields(line); slices.Contains(fields, "password") {
			traces = append(traces, fields[slices.Index(fields, "password")+1:]...)
		}
	}
	traces = append(traces, workDir+"/apt/", workDir+"/host/")
	traces = slices.DeleteFunc(traces, func(s string) bool { return strings.Contains("https://pypi.org/simple/", s) })
	slices.Sort(traces)
	return slices.Compact(traces)
}

// debianKeys is where Debian's own keys lie on every Debian, and in every image.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// needMmdebstrap is a fault where the host cannot make a Debian root.
func needMmdebstrap() error {
	if runtime.GOARCH != "amd64" {
		return fault.New(fault.Unsupported, "images for %s are not built yet", runtime.GOARCH).WithRemedy("use an amd64 machine")
	}
	const remedy = "run `toastdev doctor --fix`, or install the packages mmdebstrap and debian-archive-keyring"
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return fault.New(fault.Missing, "an image is built by mmdebstrap, which is not here").WithRemedy(remedy)
	}
	if _, err := os.Stat(debianKeys); err != nil {
		return fault.New(fault.Missing, "Debian's archive keys are not here (%s)", debianKeys).WithRemedy(remedy)
	}
	return nil
}

// mmdebstrap runs it with the host's way to Debian's archive. scratch is a folder for the build; stdout takes what --format
// makes. It is asked to end when ctx ends, and when toastdev is killed: then it removes what it has unpacked.
func (h *host) mmdebstrap(ctx context.Context, scratch, suite string, stdout io.Writer, out *output, args ...string) error {
	files := map[string][]byte{"apt.conf": aptConf(append(slices.Clone(patience), h.APT...)), "auth.conf": h.Auth}
	for name, content := range files {
		// Readable to the user that mmdebstrap becomes when it is not run by root.
		if err := os.WriteFile(filepath.Join(scratch, name), content, 0o644); err != nil {
			return err
		}
	}
	args = append([]string{"--aptopt=" + filepath.Join(scratch, "apt.conf")}, args...)
	if len(h.Auth) > 0 {
		args = append(args, "--setup-hook=upload "+filepath.Join(scratch, "auth.conf")+" /etc/apt/auth.conf")
	}
	args = append(args, suite, "-")
	for _, s := range h.Sources {
		if _, local := localDir(s.URI); local {
			args = append([]string{"--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount"}, args...)
		}
		args = append(args, s.String())
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = stdout, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	// The kernel ties Pdeathsig to the thread that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Failed, "mmdebstrap: %w", err).
			WithRemedy("see that a Debian mirror answers (%s; it and proxies are taken from this machine's APT configuration)", h.Sources[0].URI)
	}
	return nil
}
