package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"golang.org/x/sync/errgroup"

	"github.com/toast-cloud/toastdev/images"
	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

// Deadlines: several times what the slowest took on two emulating cores.
const (
	nodeDeadline  = 45 * time.Minute
	guestDeadline = 15 * time.Minute
)

// nodeSpace is what a build takes at its height: the base, the container's layer, and the image made of it.
const nodeSpace = 8 * gib

// Node is the engine's name of the recipe's image, which is built when the engine does not have it. Of two toastdevs that
// build the same at once one waits for the other. A build that fails leaves its log and nothing else; what a killed one
// left is removed by the next.
func Node(ctx context.Context, r Request) (string, error) {
	e, err := connect(ctx)
	if err != nil {
		return "", err
	}
	defer e.Close()
	ref := r.Node.Ref()
	if there, err := e.has(ctx, ref); there || err != nil {
		return ref, err
	}
	name := "node-" + r.Node.Release + "-" + r.Node.Hash[:12]
	unlock, err := lock(ctx, r.Home, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if there, err := e.has(ctx, ref); there || err != nil {
		return ref, err
	}
	if err := e.sweep(ctx, r, name); err != nil {
		return "", err
	}
	if err := needMmdebstrap(); err != nil {
		return "", err
	}
	info, err := e.Info(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the engine for its disk: %w", err)
	}
	if err := errors.Join(needSpace(info.DockerRootDir, nodeSpace, "building a node image"), needSpace(os.TempDir(), 1*gib, "building a node image")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, nodeDeadline)
	defer cancel()
	b := &nodeBuild{workshop: workshop{engine: e, scratch: scratchName(r.Home.ID, name)}, recipe: r.Node}
	if b.journal, err = openJournal(r.Home, "node-"+r.Node.Release, "image-"+name); err != nil {
		return "", err
	}
	defer b.journal.Close()
	began := time.Now()
	if err := b.run(ctx); err != nil {
		return "", fmt.Errorf("build %s: %w", ref, err)
	}
	progress.Emit(ctx, progress.Event{Phase: phase, Unit: b.journal.unit, Message: fmt.Sprintf("built %s in %.0f s", ref, time.Since(began).Seconds()), Done: true})
	return ref, nil
}

// has says whether the engine has an image.
func (e *engine) has(ctx context.Context, ref string) (bool, error) {
	_, err := e.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the image %s: %w", ref, err)
	}
	return true, nil
}

// Everything half-made has a name by which the next build finds it: <prefix><home>-<image>, of a container or a base.
const (
	scratchPrefix = "toastdev-bake-"
	baseRepo      = "toastdev/base"
)

func scratchName(home, name string) string { return scratchPrefix + home + "-" + name }

// sweep removes what killed builds of this home left: containers, and bases. Those of a build that goes on have their lock held.
func (e *engine) sweep(ctx context.Context, r Request, own string) error {
	prefix := scratchName(r.Home.ID, "")
	containers, err := e.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "^/"+prefix))})
	if err != nil {
		return fmt.Errorf("look for containers of builds that were killed: %w", err)
	}
	bases, err := e.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", baseRepo))})
	if err != nil {
		return fmt.Errorf("look for images of builds that were killed: %w", err)
	}
	isDead := isDead(r.Home, own)
	for _, c := range containers {
		if name, ok := strings.CutPrefix(strings.TrimPrefix(c.Names[0], "/"), prefix); ok && isDead(name) {
			if err := e.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove the container of a build that was killed: %w", err)
			}
		}
	}
	for _, base := range bases {
		for _, tag := range base.RepoTags {
			if name, ok := strings.CutPrefix(tag, baseRepo+":"+prefix); ok && isDead(name) {
				if _, err := e.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) {
					return fmt.Errorf("remove the base of a build that was killed: %w", err)
				}
			}
		}
	}
	return nil
}

// isDead is whether the build of that name does not go on: nobody holds its lock, or it is the caller's own.
func isDead(home *project.Home, own string) func(name string) bool {
	dead := map[string]bool{own: true}
	return func(name string) bool {
		if known, ok := dead[name]; ok {
			return known
		}
		if held, err := lockFile(home, name); err == nil {
			if free, err := held.TryLock(); err == nil && free {
				dead[name] = true
				_ = held.Unlock()
			}
		}
		return dead[name]
	}
}

// nodeBuild is one build on its way.
type nodeBuild struct {
	workshop // its name is that of its folder and of the base's tag too
	recipe   *images.NodeRecipe
	journal  *journal
	count    int // packages to be installed, as APT counts them
}

func (b *nodeBuild) run(ctx context.Context) (err error) {
	if b.host, err = lookAtHost(ctx, b.recipe.Suite); err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if removed := b.remove(clean); err == nil {
			err = removed
		}
	}()
	if err := b.journal.step(ctx, "base system", b.base); err != nil {
		return err
	}
	if err := b.journal.step(ctx, "build container", b.start); err != nil {
		return err
	}
	both, inner := errgroup.WithContext(ctx)
	both.Go(func() error { return b.journal.step(inner, "Salt", b.salt) })
	both.Go(func() error { return b.journal.step(inner, "download packages", b.download) })
	if err := both.Wait(); err != nil {
		return err
	}
	if err := b.journal.step(ctx, "install states", b.bake); err != nil {
		return err
	}
	if err := b.journal.step(ctx, "clean", b.clean); err != nil {
		return err
	}
	return b.journal.step(ctx, "commit", b.commit)
}

// base makes the base system by mmdebstrap and streams it into the engine.
func (b *nodeBuild) base(ctx context.Context, out *output) error {
	scratch, remove, err := scratchFolder(b.scratch)
	if err != nil {
		return err
	}
	defer remove()
	args := []string{"--variant=" + b.recipe.Variant, "--format=tar", "--include=" + strings.Join(b.recipe.Base, ",")}
	for _, name := range sortedKeys(b.recipe.Rootfs) {
		// What says how packages are unpacked must be known before the first one is.
		option := map[string]string{"etc/apt/apt.conf.d": "--aptopt=", "etc/dpkg/dpkg.cfg.d": "--dpkgopt="}[path.Dir(name)]
		if option == "" {
			continue
		}
		file := path.Join(scratch, path.Base(path.Dir(name))+"-"+path.Base(name))
		if err := os.WriteFile(file, b.recipe.Rootfs[name], 0o644); err != nil {
			return err
		}
		args = append(args, option+file)
	}
	rootfs := map[string][]byte{"etc/apt/sources.list.d/debian.sources": publicDeb822(b.recipe.Suite)}
	for name, content := range b.recipe.Rootfs {
		rootfs[name] = content
	}
	tarball, err := tarOf("", rootfs)
	if err != nil {
		return err
	}
	overlay := path.Join(scratch, "rootfs.tar")
	if err := os.WriteFile(overlay, tarball, 0o644); err != nil {
		return err
	}
	args = append(args,
		`--customize-hook=rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/auth.conf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap`,
		"--customize-hook=tar-in "+overlay+" /")
	out.watch = func(line string) bool {
		if doing, ok := strings.CutPrefix(line, "I: "); ok {
			out.tell(0, 0, "base system: "+doing)
		}
		return false
	}
	reader, writer := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := b.host.mmdebstrap(ctx, scratch, b.recipe.Suite, writer, out, args...)
		if err == nil {
			return writer.Close()
		}
		// The engine must see that the stream was cut, not that it ended.
		writer.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		answer, err := b.ImageImport(ctx, image.ImportSource{Source: reader, SourceName: "-"}, baseRepo+":"+b.scratch, image.ImportOptions{})
		if err == nil {
			_, err = io.Copy(out, answer)
			err = errors.Join(err, answer.Close())
		}
		if err != nil {
			err = fmt.Errorf("import the base: %w", err)
			reader.CloseWithError(err)
		}
		return err
	})
	return group.Wait()
}

// publicDeb822 is Debian's own sources, as they stand in an image.
func publicDeb822(suite string) []byte {
	var b bytes.Buffer
	for _, s := range publicSources(suite) {
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n", s.URI, s.Suite, strings.Join(s.Components, " "), debianKeys)
	}
	return b.Bytes()
}

// minion is Salt's configuration for the build. Its folders are on the build's tmpfs. The trees' own modules are found by
// module_dirs: states that are named are run without the synchronising that goes before a highstate.
func (b *nodeBuild) minion() []byte {
	var roots []string
	for i := range b.recipe.Trees {
		roots = append(roots, fmt.Sprintf("%s/salt/tree-%d", workDir, i))
	}
	return fmt.Appendf(nil, `file_client: local
id: image
cachedir: %[1]s/cache
pki_dir: %[1]s/pki
file_roots: {base: [%[2]s]}
module_dirs: [%[2]s]
ext_pillar: [{cmd_json: cat %[1]s/pillar.json}]
state_aggregate: [pkg]
fips_mode: false
enable_fqdns_grains: false
enable_gpu_grains: false
metadata_server_grains: false
`, workDir+"/salt", strings.Join(roots, ", "))
}

// start makes the build's container from the base and puts in what the build needs.
func (b *nodeBuild) start(ctx context.Context, _ *output) error {
	files := map[string][]byte{
		"constraints.txt": b.recipe.Constraints, "salt/minion": b.minion(), "salt/pillar.json": b.recipe.Pillar,
		// Every package would compile its Python by itself, on one core.
		"bin/py3compile": []byte("#!/bin/sh\n"),
	}
	for i, tree := range b.recipe.Trees {
		for name, content := range tree {
			files[fmt.Sprintf("salt/tree-%d/%s", i, name)] = content
		}
	}
	if err := b.open(ctx, baseRepo+":"+b.scratch, files, container.Config{}, container.HostConfig{}); err != nil {
		return err
	}
	// No service may start while its package is installed.
	_, err := node.Output(ctx, b.node, "sh", "-ec", `printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d`)
	return err
}

// salt puts Salt into a virtual environment of its own.
func (b *nodeBuild) salt(ctx context.Context, out *output) error {
	out.watch = func(line string) bool {
		if strings.HasPrefix(line, "Collecting ") {
			out.tell(0, 0, "Salt: "+line)
		}
		return false
	}
	err := b.do(ctx, out, `python3 -m venv --system-site-packages /opt/salt
		/opt/salt/bin/pip install --no-compile --no-cache-dir --progress-bar off -c "$1" "salt==$2"
		python3 -m compileall -q -j 0 /opt/salt || true`, workDir+"/constraints.txt", b.recipe.Salt)
	if err != nil {
		return fault.New(fault.Failed, "install Salt %s: %w", b.recipe.Salt, err).
			WithRemedy("see that Python's package index answers (it and proxies are taken from this machine's pip configuration)")
	}
	return nil
}

var newlyInstalled = regexp.MustCompile(`(\d+) newly installed`)

// download fetches every package while Salt is being installed.
func (b *nodeBuild) download(ctx context.Context, out *output) error {
	out.watch = func(line string) bool {
		if match := newlyInstalled.FindStringSubmatch(line); match != nil {
			b.count, _ = strconv.Atoi(match[1]) // digits
		}
		// dlstatus:<number>:<percent>:<text>
		if parts := strings.SplitN(line, ":", 4); parts[0] == "dlstatus" && len(parts) == 4 {
			percent, _, _ := strings.Cut(parts[2], ".")
			i, _ := strconv.Atoi(percent)
			out.tell(i, 100, "download packages")
			return true
		}
		return strings.HasPrefix(line, "Get:")
	}
	err := b.do(ctx, out, `apt-get -q update
		apt-get -q -y -o APT::Status-Fd=1 install --download-only --no-install-recommends "$@"`, b.recipe.Packages...)
	if err != nil {
		return b.aptFault(err)
	}
	return nil
}

// dpkgAction is a line of dpkg's log: 2026-01-31 10:11:12 configure nova-common:all 2:26.2.2-1 <none>
var dpkgAction = regexp.MustCompile(`^\S+ \S+ (install|configure) ([^\s:]+)`)

// bake runs the install states.
func (b *nodeBuild) bake(ctx context.Context, out *output) error {
	following, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	follow := &output{ctx: ctx, journal: b.journal, step: "install states"}
	steps := 0
	follow.watch = func(line string) bool {
		// dpkg unpacks every package, then configures every package.
		if match := dpkgAction.FindStringSubmatch(line); match != nil {
			steps++
			follow.tell(min(steps, 2*b.count), 2*b.count, match[1]+" "+match[2])
		}
		if _, what, ok := strings.Cut(line, "Completed state ["); ok {
			state, _, _ := strings.Cut(what, "]")
			follow.tell(0, 0, "state "+state+" is done")
			return false
		}
		return true
	}
	go func() {
		defer close(done)
		_ = b.node.Run(following, node.Cmd{Args: []string{"tail", "-q", "-n", "0", "-F", "/var/log/dpkg.log", workDir + "/bake.log"}, Stdout: follow})
	}()
	err := b.do(ctx, out, `/opt/salt/bin/salt-call --config-dir="$1/salt" --local --out=json --out-file="$1/bake.json" \
		--log-file="$1/bake.log" --log-file-level=info --retcode-passthrough state.apply "$2"`, workDir, strings.Join(b.recipe.States, ","))
	stop()
	<-done
	if ctx.Err() != nil {
		return ctx.Err()
	}
	log, _ := node.Output(ctx, b.node, "sh", "-c", "cat "+workDir+"/bake.log; tail -n 60 /var/log/apt/term.log") // an aid to an error that is told anyway
	for line := range strings.Lines(string(log)) {
		b.journal.line("Salt's log", strings.TrimRight(line, "\n"))
	}
	result, _ := node.Output(ctx, b.node, "sh", "-c", "cat "+workDir+"/bake.json 2>/dev/null || true")
	if failure := failedState(result); failure != nil {
		return failure
	}
	return err
}

// failedState is what the first failed state of a run says; nil when none failed or there is no result.
func failedState(result []byte) error {
	var returned struct{ Local json.RawMessage }
	if json.Unmarshal(result, &returned) != nil {
		return nil
	}
	var problems []string
	if json.Unmarshal(returned.Local, &problems) == nil {
		return errors.New(strings.Join(problems, "; "))
	}
	type state struct {
		ID      string          `json:"__id__"`
		SLS     string          `json:"__sls__"`
		Order   int             `json:"__run_num__"`
		Result  *bool           `json:"result"`
		Comment string          `json:"comment"`
		Changes json.RawMessage `json:"changes"`
	}
	var states map[string]state
	if json.Unmarshal(returned.Local, &states) != nil {
		return nil
	}
	var failed []state
	for _, s := range states {
		if s.Result == nil || !*s.Result {
			failed = append(failed, s)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	first := slices.MinFunc(failed, func(a, b state) int { return a.Order - b.Order })
	var command struct{ Stdout, Stderr string }
	_ = json.Unmarshal(first.Changes, &command) // other states' changes are of another form
	log := command.Stdout + "\n" + command.Stderr
	if strings.TrimSpace(log) == "" {
		log = first.Comment
	}
	return &fault.Error{Code: fault.Failed, Message: strings.TrimRight(fmt.Sprintf("state %s/%s", first.SLS, first.ID), "/ ") + " failed", Log: node.LastLines(log, 12)}
}

// clean removes what belongs to the build or to one machine, and then looks for what of the host is left.
func (b *nodeBuild) clean(ctx context.Context, out *output) error {
	err := b.do(ctx, out, `rm -rf /usr/sbin/policy-rc.d /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log /var/log/apt /root/.cache \
			/etc/machine-id /var/lib/dbus/machine-id /etc/ssh/ssh_host_* /run/* /var/lib/systemd/random-seed
		: >/etc/machine-id
		mkdir -p /run/lock`)
	if err != nil {
		return err
	}
	return b.search(ctx, out)
}

// commit makes the container the image. Only now has it a name that anybody asks for.
func (b *nodeBuild) commit(ctx context.Context, _ *output) error {
	// The engine ends what it has begun whether or not anybody waits, and gives the image its name last: it is waited for.
	ctx = context.WithoutCancel(ctx)
	// Nothing of the container needs to end well any more.
	if err := b.ContainerKill(ctx, b.scratch, "KILL"); err != nil {
		return fmt.Errorf("stop the build's container: %w", err)
	}
	_, err := b.ContainerCommit(ctx, b.scratch, container.CommitOptions{Reference: b.recipe.Ref(), Changes: []string{
		`ENTRYPOINT ["/usr/lib/toastdev/init"]`, `CMD []`,
		fmt.Sprintf("LABEL %s=%q %s=%q", labelHash, b.recipe.Hash, labelRelease, b.recipe.Release),
	}})
	return err
}

// remove takes the container away, and the base's name; the base itself goes with the images that stand on it.
func (b *nodeBuild) remove(ctx context.Context) error {
	errs := []error{b.discard(ctx)}
	if _, err := b.ImageRemove(ctx, baseRepo+":"+b.scratch, image.RemoveOptions{PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("remove the build's base: %w", err))
	}
	return errors.Join(errs...)
}

// tarOf is files as a tar stream, below a folder, with the modes of a recipe's files.
func tarOf(below string, files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{".": true, "/": true}
	var folder func(dir string) error
	folder = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := folder(path.Dir(dir)); err != nil {
			return err
		}
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
	}
	for _, name := range sortedKeys(files) {
		content := files[name]
		full := path.Join(below, name)
		if err := folder(path.Dir(full)); err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: full, Mode: int64(images.Mode(content)), Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
