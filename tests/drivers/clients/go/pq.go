// database/sql with lib/pq: unnamed and named statements, COPY, cancel by context, its pool.
//
// lib/pq parses the unnamed statement and uses it after the next Sync. Behind a transaction pooler that holds only
// within a transaction or with binary_parameters, as with PgBouncer.

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lib/pq"
)

const me = "go-pq"

func open(options string) *sql.DB {
	db, err := sql.Open("postgres", "sslmode=disable "+options) // the rest is in the PG* variables
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

func main() {
	db := open("")
	for _, options := range []string{"", "binary_parameters=yes"} {
		db := open(options)
		step("parameters "+options, func() error {
			for i := 0; i < 50; i++ {
				tx, err := db.Begin()
				if err != nil {
					return err
				}
				var n int
				var text string
				if err := tx.QueryRow("select $1::int, $2::text", i, "it's ä").Scan(&n, &text); err != nil {
					return err
				}
				if err := equal(fmt.Sprint(i, "it's ä"), fmt.Sprint(n, text)); err != nil {
					return err
				}
				if err := tx.Commit(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if os.Getenv("DRIVERS_STARTUP_PARAMETERS") != "" {
		step("startup_parameters", func() error {
			mine := open("search_path=mine")
			defer mine.Close()
			for i := 0; i < 20; i++ {
				var path string
				if err := mine.QueryRow("show search_path").Scan(&path); err != nil {
					return err
				}
				if err := equal("mine", path); err != nil {
					return err
				}
			}
			return nil
		})
	}
	step("prepared_statements_are_reused", func() error {
		statement, err := db.Prepare("select $1::int")
		if err != nil {
			return err
		}
		defer statement.Close()
		return all(func(i int) error {
			var n int
			if err := statement.QueryRow(i).Scan(&n); err != nil {
				return err
			}
			return equal(i, n)
		})
	})
	step("errors_in_the_middle", func() error {
		for i := 0; i < 10; i++ {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			if _, err := tx.Exec("insert into work values ($1, 'gone', 1)", me); err != nil {
				return err
			}
			var failure *pq.Error
			if _, err := tx.Exec("select 1 / $1::int", 0); !errors.As(err, &failure) || failure.Code != "22012" {
				return fmt.Errorf("expected 22012, got %v", err)
			}
			if err := tx.Rollback(); err != nil {
				return err
			}
			var n int
			if err := db.QueryRow("select count(*) from work where client = '" + me + "'").Scan(&n); err != nil {
				return err
			}
			if err := equal(0, n); err != nil {
				return err
			}
		}
		return nil
	})
	step("copies", func() error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		statement, err := tx.Prepare(pq.CopyIn("work", "client", "token", "n"))
		if err != nil {
			return err
		}
		for i := 0; i < 20000; i++ {
			if _, err := statement.Exec(me, "copy", i); err != nil {
				return err
			}
		}
		if _, err := statement.Exec(); err != nil {
			return err
		}
		if err := statement.Close(); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRow("select count(*) from work where client = $1", me).Scan(&n); err != nil {
			return err
		}
		return equal(20000, n)
	})
	step("cancels", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := db.ExecContext(ctx, "select pg_sleep(15)"); err == nil || time.Since(start) > 8*time.Second {
			return fmt.Errorf("after %s: %v", time.Since(start), err)
		}
		_, err := db.Exec("select 1")
		return err
	})
	step("pools", func() error {
		return all(func(i int) error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			token, got, back := fmt.Sprint(me, i), "", ""
			if err := tx.QueryRow("select set_config('app.token', $1, true)", token).Scan(&got); err != nil {
				return err
			}
			if err := tx.QueryRow("select current_setting('app.token')").Scan(&back); err != nil {
				return err
			}
			if err := equal(token+token, got+back); err != nil {
				return err
			}
			return tx.Commit()
		})
	})
	exit()
}
