// pgx 4: cached named statements, batches, binary COPY, cancel by context, its pool.

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const me = "go-pgx"

var ctx = context.Background()

func connected(options string, f func(c *pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, "sslmode=disable "+options) // the rest is in the PG* variables
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return f(c)
}

func main() {
	// A small statement_cache_capacity is left out: pgx 4 evicts with DEALLOCATE, which transaction poolers do not map.
	for _, options := range []string{"", "statement_cache_mode=describe"} {
		step("parameters "+options, func() error {
			return connected(options, func(c *pgx.Conn) error {
				for i := 0; i < 60; i++ {
					var n int
					var text string
					sql := fmt.Sprintf("select $1::int + %d, $2::text", i%6)
					if err := c.QueryRow(ctx, sql, i, "it's ä").Scan(&n, &text); err != nil {
						return err
					}
					if err := equal(fmt.Sprint(i+i%6, "it's ä"), fmt.Sprint(n, text)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	step("simple_protocol", func() error {
		return connected("", func(c *pgx.Conn) error {
			var n int
			if err := c.QueryRow(ctx, "select $1::int", pgx.QuerySimpleProtocol(true), 7).Scan(&n); err != nil {
				return err
			}
			return equal(7, n)
		})
	})
	step("batches", func() error {
		return connected("", func(c *pgx.Conn) error {
			batch := &pgx.Batch{}
			for i := 0; i < 100; i++ {
				batch.Queue("select $1::int", i)
			}
			results := c.SendBatch(ctx, batch)
			for i := 0; i < 100; i++ {
				var n int
				if err := results.QueryRow().Scan(&n); err != nil {
					return err
				}
				if err := equal(i, n); err != nil {
					return err
				}
			}
			return results.Close()
		})
	})
	step("batches_with_errors", func() error {
		return connected("", func(c *pgx.Conn) error {
			for i := 0; i < 5; i++ {
				batch := &pgx.Batch{}
				batch.Queue("insert into work values ($1, 'gone', 1)", me)
				batch.Queue("select 1 / $1::int", 0)
				if err := c.SendBatch(ctx, batch).Close(); err == nil {
					return fmt.Errorf("no error")
				}
				var n int
				if err := c.QueryRow(ctx, "select count(*) from work where client = $1", me).Scan(&n); err != nil {
					return err
				}
				if err := equal(0, n); err != nil {
					return err
				}
			}
			return nil
		})
	})
	step("copies", func() error {
		return connected("", func(c *pgx.Conn) error {
			tx, err := c.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx)
			rows := pgx.CopyFromSlice(20000, func(i int) ([]interface{}, error) {
				return []interface{}{me, "copy", i}, nil
			})
			n, err := tx.CopyFrom(ctx, pgx.Identifier{"work"}, []string{"client", "token", "n"}, rows)
			if err != nil {
				return err
			}
			return equal(20000, n)
		})
	})
	step("cancels", func() error {
		return connected("", func(c *pgx.Conn) error {
			limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			if _, err := c.Exec(limited, "select pg_sleep(15)"); err == nil || time.Since(start) > 8*time.Second {
				return fmt.Errorf("after %s: %v", time.Since(start), err)
			}
			return nil
		})
	})
	step("pools", func() error {
		pool, err := pgxpool.Connect(ctx, fmt.Sprintf("sslmode=disable pool_max_conns=%d", connections))
		if err != nil {
			return err
		}
		defer pool.Close()
		return all(func(i int) error {
			return pool.BeginFunc(ctx, func(tx pgx.Tx) error {
				token, got, back := fmt.Sprint(me, i), "", ""
				if err := tx.QueryRow(ctx, "select set_config('app.token', $1, true)", token).Scan(&got); err != nil {
					return err
				}
				if err := tx.QueryRow(ctx, "select current_setting('app.token')").Scan(&back); err != nil {
					return err
				}
				return equal(token+token, got+back)
			})
		})
	})
	exit()
}
