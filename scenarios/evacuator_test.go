package scenarios

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// journalled is an incident as the evacuator keeps it.
func journalled(t *testing.T) incident {
	t.Helper()
	var i incident
	err := json.Unmarshal([]byte(`{"host": "cmp1", "state": "evacuated", "alarm": null, "agreed": ["ctl", "nas"],
		"steps": {"silent": 1000.25, "detected": 1005.5, "fenced": 1006.0, "proved_dead": 1005.9, "forced_down": 1006.75, "evacuated": 1020.25},
		"instances": {"b": {"name": "two", "status": "ACTIVE", "requested": 1007.25, "active": 1020.0, "host": "cmp2", "tries": 1, "error": null},
			"a": {"name": "one", "status": "ACTIVE", "requested": 1007.0, "active": null, "host": null, "tries": 3, "error": "no valid host"}}}`), &i)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestATimelineCountsFromTheLastHeartbeat(t *testing.T) {
	line := journalled(t).timeline(map[string]time.Time{"b": time.Unix(1007, 0)})
	if line.Steps["detected"] != 5.25 || line.Steps["evacuated"] != 20 || line.Steps["silent"] != 0 || len(line.Steps) != 5 {
		t.Errorf("%v", line.Steps)
	}
	if !line.Proved || *line.Instances[1].Active != 19.75 || *line.Instances[1].Begun != 6.75 || line.Instances[0].Error == "" {
		t.Errorf("%+v", line)
	}
	text := line.String()
	for _, want := range []string{"found dead by ctl, nas\n", "    +5.2 s  detected\n    +5.7 s  proved dead\n    +5.8 s  fenced\n", "   +19.8 s  two is on cmp2\n", "one is not evacuated: no valid host\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestWhatBeganBeforeTheFenceIsNotProved(t *testing.T) {
	for name, change := range map[string]func(*incident, map[string]time.Time){
		"by Nova's record":  func(_ *incident, begun map[string]time.Time) { begun["b"] = time.Unix(1004, 0) },
		"by the journal":    func(i *incident, _ map[string]time.Time) { i.Steps["proved_dead"] = 1007.25 },
		"without the proof": func(i *incident, _ map[string]time.Time) { delete(i.Steps, "proved_dead") },
	} {
		i, begun := journalled(t), map[string]time.Time{}
		change(&i, begun)
		if i.timeline(begun).Proved {
			t.Error(name)
		}
	}
}

func TestAnIncidentThatIsOverIsNotWaitedFor(t *testing.T) {
	i := journalled(t)
	if !i.reached("fenced") || i.reached("recovered") || i.reached("alarm") {
		t.Errorf("%+v", i)
	}
	i.State, i.Steps["recovered"] = "recovered", 1060
	if i.reached("fenced") || !i.reached("recovered") {
		t.Errorf("%+v", i)
	}
}

func TestTheEvacuatorsWords(t *testing.T) {
	for line, good := range map[string]bool{
		"start": true, "stop": true, "status": true, "wait cmp1 fenced": true, "wait cmp1 fenced 30s": true, "timeline cmp1": true,
		"begin": false, "start cmp1": false, "wait cmp1": false, "wait cmp1 fence": false, "wait cmp1 fenced soon": false, "timeline": false,
	} {
		if err := checkEvacuator(strings.Fields(line)); (err == nil) != good {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestWhoRunsWhatOfTheEvacuator(t *testing.T) {
	p := brokenPlan()
	var got []string
	for i := range p.Nodes {
		got = append(got, p.Nodes[i].Name+" "+strings.Join(evacuatorUnits(p, &p.Nodes[i]), " "))
	}
	want := "ctl toast-evacuator-watch toast-evacuator-decide; net toast-evacuator-watch; cmp1 toast-evacuator-beat"
	if strings.Join(got, "; ") != want {
		t.Errorf("%q", got)
	}
}
