// Command busy is all that the test's node image has: it is the init, and the programs that the provisioner runs.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "init": // until systemd's signal to halt
		halt := make(chan os.Signal, 1)
		signal.Notify(halt, syscall.Signal(37)) // SIGRTMIN+3
		<-halt
	case "tee":
		data, err := io.ReadAll(os.Stdin)
		if err == nil {
			err = os.WriteFile(os.Args[1], data, 0o644)
		}
		exit(err)
	case "cat":
		if len(os.Args) == 1 {
			_, err := io.Copy(os.Stdout, os.Stdin)
			exit(err)
			return
		}
		data, err := os.ReadFile(os.Args[1])
		os.Stdout.Write(data)
		exit(err)
	case "say": // on stdout, on stderr, with an exit code
		fmt.Print(os.Args[1])
		fmt.Fprint(os.Stderr, os.Args[2])
		code, err := strconv.Atoi(os.Args[3])
		exit(err)
		os.Exit(code)
	case "printenv":
		fmt.Println(os.Getenv(os.Args[1]))
	case "sleep":
		time.Sleep(time.Hour)
	default:
		fmt.Fprintln(os.Stderr, "busy: unknown program", os.Args[0])
		os.Exit(127)
	}
}

// exit ends the program when there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
