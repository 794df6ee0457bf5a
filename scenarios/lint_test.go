package scenarios

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"golang.org/x/tools/txtar"
)

// fakes is a table of commands that need no region.
func fakes() map[string]Command {
	words := builtinCommands()
	maps.Copy(words, waitCommands())
	maps.Copy(words, faultCommands())
	words["make"] = Command{
		Summary: "make a thing", Args: "NAME [--on NODE] [-c N]", Async: true, Min: 1, Max: 1,
		Sets: func(args []string) []string { return []string{args[0], args[0] + "_ip"} },
		Flags: func(flags *pflag.FlagSet) Action {
			flags.String("on", "", "the node")
			flags.IntP("count", "c", 1, "how many")
			return func(ctx context.Context, r *Run, args []string) (Outcome, error) {
				r.Undo("remove "+args[0], func(context.Context) error {
					r.Logf("removed %s", args[0])
					return nil
				})
				return Outcome{Text: "made " + args[0], Set: map[string]string{args[0]: "id-" + args[0], args[0] + "_ip": "10.0.0.1"}}, nil
			}
		},
	}
	words["exec"] = Command{Summary: "run a command on a node", Args: "NODE -- CMD...", Min: 2, Max: -1,
		Flags: plain(func(_ context.Context, _ *Run, args []string) (Outcome, error) {
			return Outcome{Text: strings.Join(args[1:], " ")}, nil
		})}
	words["break"] = Command{Summary: "break a node", Args: "NODE", Min: 1, Max: 1, Alone: true,
		Flags: plain(func(context.Context, *Run, []string) (Outcome, error) { return Outcome{}, nil })}
	return words
}

func scriptOf(t *testing.T, text string) *Script {
	t.Helper()
	s, err := read("try.txtar", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBadScriptsAreToldBeforeAnythingIsMade(t *testing.T) {
	l := newLanguage(fakes())
	for name, c := range map[string]struct{ script, want string }{
		"unknown command": {"# try: it\n\nmaek vm\n", `try.txtar:3:1: unknown command "maek"
  remedy: write "make"`},
		"unknown command behind prefixes": {"[!dvr] ! frobnicate a\n", "try.txtar:1:10: unknown command \"frobnicate\"\n  remedy: `toastdev scenario help` lists the commands"},
		"too many arguments": {"make a b\n", `try.txtar:1:1: make takes 1 argument, not 2 (a, b)
  expected: make NAME [--on NODE] [-c N]
  remedy: see ` + "`toastdev scenario help make`"},
		"too few":                        {"make --on cmp1\n", "make takes 1 argument, not none"},
		"unknown flag":                   {"make vm --no cmp1\n", "make: unknown flag: --no\n  expected: make NAME [--on NODE] [-c N]\n  remedy: write --on"},
		"a flag's value":                 {"make vm -c many\n", `make: invalid argument "many" for "-c, --count" flag`},
		"flags of another":               {"exec cmp1 ls -l\n", "remedy: write -- before the command that is run"},
		"undefined":                      {"make vm\necho $wm_ip\n", "try.txtar:2:1: no line before this one sets the variable $wm_ip\n  expected: one of api, external_gateway, id, region, scenario, vm, vm_ip, or a node by its role: control1, network1, compute1, compute2, ...\n  remedy: write $vm_ip"},
		"set too late":                   {"echo $vm\nmake vm\n", "no line before this one sets the variable $vm"},
		"condition":                      {"[drv] make vm\n", "try.txtar:1:7: unknown condition [drv]\n  expected: dvr, emulation, has, kvm, legacy, netem, nodes, patched, vlan, vxlan\n  remedy: write \"dvr\""},
		"capability":                     {"[has:application-credential] make vm\n", `write "application-credentials"`},
		"role":                           {"[nodes:computes>=2] make vm\n", `no role "computes"`},
		"patch":                          {"[patched:fip-timing] make vm\n", "[patched:fip-timing] is not understood"},
		"nodes":                          {"[nodes:compute] make vm\n", "[nodes:compute] is not understood"},
		"no suffix":                      {"[dvr:yes] make vm\n", "[dvr:yes]: dvr takes nothing behind a colon"},
		"no command":                     {"[dvr]\n", "a condition without a command"},
		"quote":                          {"echo 'never ends\n", "try.txtar:1:1: unterminated quoted argument"},
		"background":                     {"break cmp1 &\njoin\n", "break does not run in the background"},
		"a wrong word beside a variable": {"wait agent l3 on $compute1 down 20s\n", "try.txtar:1:1: no word here \"down\"\n  expected: alive, dead"},
		"a wrong word before a variable": {"node shake $compute1\n", "try.txtar:1:1: node shake: no such word"},
		"not joined":                     {"make vm &\n\necho\n", "try.txtar:1:1: nothing waits for this background command"},
		"native's count":                 {"cmp one\n", "cmp takes 2 arguments, not 1 (one)\n  expected: cmp [-q] FILE FILE"},
		"out of the folder":              {"cat /etc/passwd\n", `"/etc/passwd" does not lie in the script's own folder`},
		"within what":                    {"within 30s maek vm\n", `within: no command "maek" that takes a while`},
		"within how long":                {"within soon make vm\n", `"soon" is not a duration`},
		"within's command":               {"within 30s make\n", "make takes 1 argument, not none"},
		"jq":                             {"json '.servers['\n", "is not a jq expression"},
		"status":                         {"status ok\n", `"ok" is not an HTTP status`},
		"a limit":                        {"elapsed a b <60s\n", "elapsed: a limit is written with a blank"},
		"saved where":                    {"save 1st\n", `"1st" is no variable's name`},
		"local program":                  {"chmod 777 x\n", `unknown command "chmod"`},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := l.check(scriptOf(t, c.script))
			if len(wrong) != 1 || !strings.Contains(wrong[0].Error(), c.want) {
				t.Errorf("got %v\nwant one error with %s", wrong, c.want)
			}
		})
	}
}

func TestGoodScriptsHaveNothingWrongWithThem(t *testing.T) {
	l := newLanguage(fakes())
	s := scriptOf(t, `# try: everything that is right
# Why it matters.

[!dvr] skip 'routers are not distributed here'
deadline 10m
make vm --on $compute1
make -c $id other & # a comment's $nothing
join
[nodes:compute>=2] [!kvm] make third
! exec $compute2 -- ls -l '$HOME' $vm_ip
within 30s make more &
join
env size=10
echo $size ${vm}
json 'any(.a[]; . == $x)' --save found
stdout $found
save text
elapsed start end < 60s
cp stdout kept
break cmp1
-- a/file.txt --
$undefined
`)
	for _, err := range l.check(s) {
		t.Error(err)
	}
	if !s.Alone || fmt.Sprint(s.nth) != "[compute1 compute2]" || s.Summary != "everything that is right" || s.Detail != "Why it matters." ||
		fmt.Sprint(s.Needs) != "[dvr]" || s.Needs[0].Reason != "routers are not distributed here" {
		t.Errorf("%+v", s)
	}
}

// TestTheScriptsBuiltIn holds those to the language and to their form.
func TestTheScriptsBuiltIn(t *testing.T) {
	scripts, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		if s.File != s.Name+".txtar" || s.Summary == "" || s.Detail == "" {
			t.Errorf("%s begins with a line `# NAME: what it shows`, its own name, and says what it proves and why: %q, %q", s.File, s.Name, s.Summary)
		}
		for _, err := range standard().check(s) {
			t.Error(err)
		}
		if len(txtar.Parse(s.Source).Comment) == 0 {
			t.Errorf("%s is empty", s.File)
		}
	}
}

// TestEveryCommandIsDocumented holds the tables to what the help shows.
func TestEveryCommandIsDocumented(t *testing.T) {
	for name, c := range standard().words {
		if c.Summary == "" || !slices.ContainsFunc(c.Detail, func(line string) bool { return strings.HasPrefix(line, "Example: ") }) {
			t.Errorf("%s lacks a summary, or an example", name)
		}
		if _, clash := standard().natives[name]; clash {
			t.Errorf("%s is a word of rsc.io/script's too", name)
		}
	}
}

func TestLoadSaysWhatThereIs(t *testing.T) {
	for arg, want := range map[string]string{
		"metadata-dchp": `write "metadata-dhcp"`,
		"./none.txtar":  `no file "./none.txtar"`,
		"[":             "is not a glob",
	} {
		if _, err := Load([]string{arg}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
}
