// What the Go clients share: steps that print a line each.

package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	connections  = 20
	transactions = 200
)

var failed bool

// step runs one step to its end, or for a minute.
func step(name string, f func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(time.Minute):
		err = fmt.Errorf("no end after 60 s")
	}
	if err == nil {
		fmt.Println("ok", name)
		return
	}
	failed = true
	fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
}

func exit() {
	if failed {
		os.Exit(1)
	}
}

func equal(expected, got interface{}) error {
	if fmt.Sprint(expected) != fmt.Sprint(got) {
		return fmt.Errorf("expected %v, got %v", expected, got)
	}
	return nil
}

// all runs so many functions, as many at once as there are connections, and returns the first error.
func all(f func(i int) error) error {
	numbers := make(chan int)
	errors := make(chan error, transactions)
	var workers sync.WaitGroup
	for w := 0; w < connections; w++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range numbers {
				if err := f(i); err != nil {
					errors <- err
				}
			}
		}()
	}
	for i := 0; i < transactions; i++ {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
	close(errors)
	return <-errors
}
