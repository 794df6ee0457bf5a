package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/internal/project"
)

func testHome(t *testing.T) *project.Home {
	t.Helper()
	return &project.Home{Dir: t.TempDir(), ID: "0011aabb"}
}

func TestADiskThatIsNearlyFullIsAFaultWithItsRemedy(t *testing.T) {
	err := enough(3*gib, 8*gib, "/var/lib/docker", "building a node image")
	if fault.CodeOf(err) != fault.Missing || !strings.Contains(err.Error(), "needs 8.0 GiB in /var/lib/docker, 3.0 GiB are free") || !strings.Contains(err.Error(), "image prune") {
		t.Errorf("got %v", err)
	}
	if err := enough(8*gib, 8*gib, "/", "x"); err != nil {
		t.Errorf("enough is not enough: %v", err)
	}
	if err := needSpace(filepath.Join(t.TempDir(), "not", "there", "yet"), 1, "x"); err != nil {
		t.Errorf("the space above a folder that is not there yet is not seen: %v", err)
	}
}

func TestATarHasEveryFolderOnceAndScriptsExecutable(t *testing.T) {
	data, err := tarOf("", map[string][]byte{"usr/bin/tool": []byte("#!/bin/sh\n"), "usr/bin/data": []byte("x"), "top": nil})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+h.FileInfo().Mode().String())
	}
	want := []string{"top -rw-r--r--", "usr/ drwxr-xr-x", "usr/bin/ drwxr-xr-x", "usr/bin/data -rw-r--r--", "usr/bin/tool -rwxr-xr-x"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(data)%512 != 0 || !bytes.HasSuffix(data, make([]byte, 1024)) {
		t.Error("the tar has no end")
	}
	files, err := untar(bytes.NewReader(data), "usr/bin/")
	if err != nil || string(files["data"]) != "x" || len(files) != 2 {
		t.Errorf("read back: %v %v", files, err)
	}
	if _, err := untar(bytes.NewReader(data[:700]), ""); err == nil {
		t.Error("a stream that was cut is taken for whole")
	}
}

func TestAFailedStateIsNamedWithItsComment(t *testing.T) {
	for name, test := range map[string]struct{ result, want string }{
		"all well":          {`{"local": {"pkg_|-a_|-a_|-installed": {"__id__": "a", "__run_num__": 0, "result": true, "comment": ""}}}`, ""},
		"no result":         {``, ""},
		"two failed":        {`{"local": {"b": {"__id__": "b", "__sls__": "nova.install", "__run_num__": 2, "result": false, "comment": "One or more requisite failed"}, "a": {"__id__": "nova-packages", "__sls__": "nova.install", "__run_num__": 1, "result": false, "comment": "E: Unable to locate package nova-apo"}}}`, "nova.install/nova-packages failed\n  | E: Unable to locate package nova-apo"},
		"a command failed":  {`{"local": {"a": {"__id__": "begun", "__sls__": "x.install", "result": false, "comment": "Command \"set -e\" run", "changes": {"retcode": 1, "stdout": "", "stderr": "no server"}}}}`, "x.install/begun failed\n  | no server"},
		"not even rendered": {`{"local": ["Rendering SLS nova.install failed"]}`, "Rendering SLS nova.install failed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := failedState([]byte(test.result))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAStepThatFailsCarriesItsLastLinesAndTheLogsPath(t *testing.T) {
	home := testHome(t)
	j, err := openJournal(home, "node-zed", "image-x")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var told []string
	ctx := progress.With(context.Background(), progress.Func(func(e progress.Event) { told = append(told, e.Phase+" "+e.Unit+" "+e.Message) }))
	err = j.step(ctx, "base system", func(_ context.Context, out *output) error {
		io.WriteString(out, "I: running apt-get update...\nErr:1 http://mirror.test bookworm InRelease\nE: Failed to fe")
		io.WriteString(out, "tch\numount: not mounted")
		return fault.New(fault.Failed, "mmdebstrap: exit status 25").WithRemedy("see that a mirror answers")
	})
	var e *fault.Error
	if !errors.As(err, &e) || e.Unit != "node-zed" || e.Message != "base system: mmdebstrap: exit status 25" ||
		!slices.Equal(e.Log, []string{"Err:1 http://mirror.test bookworm InRelease", "E: Failed to fetch"}) ||
		e.Remedy != "see that a mirror answers; the whole log: "+home.Path("logs", "image-x.log") {
		t.Errorf("got %+v", e)
	}
	log, err := os.ReadFile(home.Path("logs", "image-x.log"))
	if err != nil || !strings.Contains(string(log), "base system: I: running apt-get update...") || !strings.Contains(string(log), "failed: mmdebstrap") {
		t.Errorf("the log: %s %v", log, err)
	}
	if !slices.Equal(told, []string{"image node-zed base system"}) {
		t.Errorf("told %q", told)
	}
}

func TestTheHostsConfigurationGoesToTheTmpfsAlone(t *testing.T) {
	dir := t.TempDir()
	ca, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "mirror.gpg")
	for _, name := range []string{ca, key} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &host{
		Sources: []source{
			{URI: "https://mirror.test/debian", Suite: "bookworm", Components: []string{"main"}, Options: map[string]string{"signed-by": key}},
			{URI: "file:" + dir, Suite: "bookworm-updates", Components: []string{"main"}, Options: map[string]string{"signed-by": debianKeys}},
		},
		APT:      []setting{{"Acquire::http::Proxy", "http://127.0.0.1:3142"}, {"Acquire::https::CaInfo", ca}},
		Auth:     []byte("machine mirror.test login me password geheim\n"),
		Pip:      map[string]string{"PIP_INDEX_URL": "https://index.test/simple", "PIP_FIND_LINKS": dir + " /no/such https://links.test", "PIP_CERT": ca},
		Proxies:  map[string]string{"https_proxy": "http://proxy.test:8080", "no_proxy": "localhost"},
		CABundle: ca,
	}
	files, binds, env, err := h.inContainer()
	if err != nil {
		t.Fatal(err)
	}
	sources := string(files["apt/sources.list"])
	if !strings.Contains(sources, "deb [signed-by=/mnt/host/") || !strings.Contains(sources, "deb [signed-by="+debianKeys+"] file:/mnt/mirror-0 bookworm-updates main") {
		t.Errorf("sources.list: %s", sources)
	}
	conf := string(files["apt/apt.conf"])
	for _, want := range []string{`Acquire::http::Proxy "http://127.0.0.1:3142";`, `Dir::Etc::sourceparts "-";`, `Acquire::https::CaInfo "/mnt/host/`} {
		if !strings.Contains(conf, want) {
			t.Errorf("apt.conf lacks %s: %s", want, conf)
		}
	}
	if want := []string{dir + ":/mnt/mirror-0:ro", dir + ":/mnt/links-1:ro"}; !slices.Equal(binds, want) {
		t.Errorf("binds %q, want %q", binds, want)
	}
	for _, want := range []string{"APT_CONFIG=/mnt/apt/apt.conf", "PIP_INDEX_URL=https://index.test/simple", "PIP_FIND_LINKS=/mnt/links-1 https://links.test", "https_proxy=http://proxy.test:8080"} {
		if !slices.Contains(env, want) {
			t.Errorf("the variables lack %s: %q", want, env)
		}
	}
	for _, variable := range env {
		if strings.Contains(variable, dir) {
			t.Errorf("%s is a path of the host", variable)
		}
	}
	traces := h.traces()
	for _, want := range []string{"https://mirror.test/debian", "http://127.0.0.1:3142", "geheim", "https://index.test/simple", "http://proxy.test:8080"} {
		if !slices.Contains(traces, want) {
			t.Errorf("%s is not looked for in the image: %q", want, traces)
		}
	}
	if slices.Contains(traces, "localhost") || slices.Contains(traces, "") {
		t.Errorf("what is no trace is looked for: %q", traces)
	}
}

func TestASecondBuildOfTheSameWaitsForTheFirst(t *testing.T) {
	home := testHome(t)
	unlock, err := lock(context.Background(), home, "node-zed-1")
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	ctx := progress.With(context.Background(), progress.Func(func(progress.Event) { close(waits) }))
	done := make(chan error)
	go func() {
		second, err := lock(ctx, home, "node-zed-1")
		if err == nil {
			second()
		}
		done <- err
	}()
	<-waits
	select {
	case err := <-done:
		t.Fatalf("both build: %v", err)
	default:
	}
	other, err := lock(context.Background(), home, "node-zed-2")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
