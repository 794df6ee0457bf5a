package run

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/toast-cloud/toastdev/internal/fault"
	"github.com/toast-cloud/toastdev/internal/node"
	"github.com/toast-cloud/toastdev/internal/plan"
	"github.com/toast-cloud/toastdev/internal/progress"
	"github.com/toast-cloud/toastdev/salt"
)

// machine is a recording node: it answers each command by the first key that is in it.
type machine struct {
	answers []answer
	ran     []string
}

type answer struct{ in, out string }

func (m *machine) Name() string { return "ctl" }

func (m *machine) Run(_ context.Context, cmd node.Cmd) error {
	line := strings.Join(cmd.Args, " ")
	m.ran = append(m.ran, line)
	if cmd.Stdin != nil {
		if _, err := io.Copy(io.Discard, cmd.Stdin); err != nil {
			return err
		}
	}
	for _, a := range m.answers {
		if strings.Contains(line, a.in) && cmd.Stdout != nil {
			_, err := io.WriteString(cmd.Stdout, a.out)
			return err
		}
	}
	return nil
}

func (m *machine) did(part string) bool {
	for _, line := range m.ran {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

const good = `{"local": {
 "file_|-conf_|-/etc/nova/nova.conf_|-managed": {"__id__": "conf", "__sls__": "nova.conf", "__run_num__": 1, "result": true, "changes": {"diff": "x"}, "comment": "File updated", "duration": 3.1},
 "service_|-nova-api_|-nova-api_|-running": {"__id__": "nova-api", "__sls__": "nova", "__run_num__": 2, "result": true, "changes": {}, "comment": "running", "duration": 9}}}`

const bad = `{"local": {
 "service_|-nova-api_|-nova-api_|-running": {"__id__": "nova-api", "__sls__": "nova", "__run_num__": 1, "result": false, "changes": {}, "comment": "One or more requisite failed: mariadb.mariadb"},
 "service_|-mariadb_|-mariadb_|-running": {"__id__": "mariadb", "__sls__": "mariadb", "__run_num__": 2, "result": false, "changes": {}, "comment": "Job for mariadb.service failed"},
 "file_|-a_|-/a_|-managed": {"__id__": "a", "__sls__": "a", "__run_num__": 0, "result": true, "changes": {}, "comment": ""}}}`

func handed(t *testing.T) *salt.Handed {
	t.Helper()
	h, err := salt.Hand(salt.Tree{States: fstest.MapFS{"top.sls": {Data: []byte("base: {}")}}}, &plan.Plan{}, &plan.Node{Name: "ctl"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func answers(result string) []answer {
	return []answer{
		{"cat " + digestFile, ""},
		{"follow", `{"i": 2, "n": 2, "id": "nova-api", "fun": "service.running"}` + "\n"},
		{"cat " + resultFile, result},
		{"systemctl show", "inactive\n"},
		{"journalctl", "mariadbd: out of disk\n"},
		{"tail -n 400", "2026 [INFO    ] fine\n2026 [ERROR   ] Job for mariadb.service failed\n"},
	}
}

func TestARunCountsItsStatesAndLeavesItsDigest(t *testing.T) {
	m := &machine{answers: answers(good)}
	var events []progress.Event
	ctx := progress.With(t.Context(), progress.Func(func(e progress.Event) { events = append(events, e) }))
	r, err := Apply(ctx, m, Job{Handed: handed(t)})
	if err != nil {
		t.Fatal(err)
	}
	if r.States != 2 || r.Changed != 1 || r.Failed != 0 || len(r.Changes) != 1 || r.Changes[0].Fun != "file.managed" {
		t.Errorf("%+v", r)
	}
	if !m.did("cat >" + digestFile) {
		t.Error("no digest was left")
	}
	if len(events) != 2 || events[0].I != 2 || events[0].N != 2 || !events[1].Done {
		t.Errorf("%+v", events)
	}
}

func TestAFailureNamesItsCauseAndItsLog(t *testing.T) {
	m := &machine{answers: answers(bad)}
	r, err := Apply(t.Context(), m, Job{Handed: handed(t)})
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("%v", err)
	}
	if e.Node != "ctl" || e.Unit != "mariadb/mariadb" || !strings.Contains(e.Message, "Job for mariadb.service failed") {
		t.Errorf("%v", e)
	}
	if log := strings.Join(e.Log, "\n"); !strings.Contains(log, "out of disk") || !strings.Contains(log, "[ERROR") || strings.Contains(log, "[INFO") {
		t.Errorf("log %q", log)
	}
	if r.Failed != 2 || m.did("cat >"+digestFile) {
		t.Errorf("%+v, digest left: %v", r, m.did("cat >"+digestFile))
	}
}

func TestTheSameHandedIsSkipped(t *testing.T) {
	h := handed(t)
	m := &machine{answers: []answer{{"cat " + digestFile, h.Digest() + "\n"}, {"systemctl show", "inactive\n"}}}
	r, err := Apply(t.Context(), m, Job{Handed: h, Skip: true})
	if err != nil || !r.Skipped || m.did("systemd-run") {
		t.Errorf("%+v %v, ran %q", r, err, m.ran)
	}
}

func TestATestRunKeepsTheDigest(t *testing.T) {
	m := &machine{answers: answers(`{"local": {"file_|-a_|-/a_|-managed": {"__id__": "a", "result": null, "changes": {"diff": "x"}, "comment": "would change"}}}`)}
	r, err := Apply(t.Context(), m, Job{Handed: handed(t), Test: true})
	if err != nil || r.Changed != 1 || r.Failed != 0 {
		t.Errorf("%+v %v", r, err)
	}
	for _, line := range m.ran {
		if strings.HasPrefix(line, "rm ") && strings.Contains(line, digestFile) || strings.Contains(line, "cat >"+digestFile) {
			t.Errorf("the digest was touched: %s", line)
		}
	}
}

func TestParseOfWhatIsNotStates(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"rendering failed": {`{"local": ["Rendering SLS 'base:nova' failed: could not find expected ':'; line 7"]}`, "line 7"},
		"no top":           {`{"local": {"no_|-states_|-states_|-None": {"result": false, "comment": "No Top file"}}}`, "No Top file"},
		"text":             {`{"local": "'toastdev.apply' is not available."}`, "not available"},
		"nothing":          {"", "no result"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse([]byte(test.in)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
