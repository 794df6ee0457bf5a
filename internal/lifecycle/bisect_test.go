package lifecycle

import (
	"errors"
	"strings"
	"testing"
)

func TestHalvingAsksTheEndsAndThenTheMiddles(t *testing.T) {
	for n := 1; n <= 33; n++ {
		for culprit := 1; culprit <= n; culprit++ {
			asked := map[int]int{}
			found, err := halve(n, func(i int) (bool, error) {
				asked[i]++
				return i >= culprit, nil
			})
			if err != nil || found != culprit {
				t.Fatalf("of %d, %d is the culprit: found %d, %v", n, culprit, found, err)
			}
			middles := 0
			for i, times := range asked {
				if times != 1 {
					t.Errorf("of %d: %d was asked of %d times", n, i, times)
				}
				if i != 0 && i != n {
					middles++
				}
			}
			if 1<<middles > 2*n {
				t.Errorf("of %d, %d is the culprit: %d asked of between the ends", n, culprit, middles)
			}
		}
	}
}

func TestEndsThatAreAlikeFindNothing(t *testing.T) {
	for _, always := range []bool{false, true} {
		_, err := halve(8, func(int) (bool, error) { return always, nil })
		if err == nil || !strings.Contains(err.Error(), "--good") {
			t.Errorf("always %t: %v", always, err)
		}
	}
	broken := errors.New("it cannot be run")
	if _, err := halve(8, func(int) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestANumberOfPatches(t *testing.T) {
	for text, want := range map[string]int{"": 7, "0": 0, "16": 16} {
		if n, err := number("--bad", text, 7, 16); err != nil || n != want {
			t.Errorf("%q is %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"17", "-1", "1x", "x", "01", " 1"} {
		if _, err := number("--bad", text, 7, 16); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
