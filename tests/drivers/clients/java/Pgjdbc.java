// pgjdbc and HikariCP: statements that become named in their fifth run and binary after it, batches, portals, COPY.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Pgjdbc {
    static final String ME = "pgjdbc";
    static final int CONNECTIONS = 20;
    static final int TRANSACTIONS = 200;

    interface Step {
        void run() throws Exception;
    }

    static boolean failed = false;

    public static void main(String[] args) {
        step("connects", Pgjdbc::connects);
        if (env("DRIVERS_STARTUP_PARAMETERS") != null) {
            step("startup_parameters", Pgjdbc::startupParameters);
        }
        step("parameters", Pgjdbc::parameters);
        for (String options : new String[] {"", "&prepareThreshold=0", "&prepareThreshold=1", "&prepareThreshold=-1",
            "&preferQueryMode=simple", "&preferQueryMode=extendedForPrepared",
            "&preferQueryMode=extendedCacheEverything", "&binaryTransfer=false",
            "&preparedStatementCacheQueries=2"}) {
            step("prepared_statements_are_reused" + options, () -> reuse(options));
        }
        step("the_same_name_means_different_statements", Pgjdbc::sameName);
        step("rolls_back", Pgjdbc::rollsBack);
        step("errors_in_the_middle", Pgjdbc::errors);
        step("autosave", Pgjdbc::autosave);
        step("batches", () -> batches(""));
        step("batches&reWriteBatchedInserts=true", () -> batches("&reWriteBatchedInserts=true"));
        step("batches_with_errors", Pgjdbc::batchesWithErrors);
        step("generated_keys", Pgjdbc::generatedKeys);
        step("copies", Pgjdbc::copies);
        step("cursors", Pgjdbc::cursors);
        step("cancels", Pgjdbc::cancels);
        step("settings_of_a_transaction", Pgjdbc::settings);
        step("metadata", Pgjdbc::metadata);
        step("pools", Pgjdbc::pools);
        System.exit(failed ? 1 : 0);
    }

    static void step(String name, Step step) {
        try {
            step.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            failed = true;
            String state = error instanceof SQLException ? ((SQLException) error).getSQLState() + " " : "";
            System.out.println("FAIL " + name + ": " + state + String.valueOf(error).replace('\n', ' '));
            for (StackTraceElement frame : error.getStackTrace()) {
                if (frame.getClassName().equals("Pgjdbc")) {
                    System.out.println("  at " + frame);
                }
            }
        }
    }

    static String url() {
        return "jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + env("PGDATABASE");
    }

    static String env(String name) {
        return System.getenv(name);
    }

    static Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(
                url() + "?user=" + env("PGUSER") + "&password=" + env("PGPASSWORD") + options);
    }

    static void equal(Object expected, Object got) {
        if (!Objects.deepEquals(expected, got)) {
            throw new AssertionError("expected " + expected + ", got " + got);
        }
    }

    static Object ask(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                s.setObject(i + 1, values[i]);
            }
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getObject(1);
            }
        }
    }

    static void change(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                s.setObject(i + 1, values[i]);
            }
            s.executeUpdate();
        }
    }

    static void fails(String state, Step step) throws Exception {
        try {
            step.run();
        } catch (SQLException error) {
            if (state.equals(error.getSQLState())) {
                return;
            }
            throw error;
        }
        throw new AssertionError("no error, where " + state + " was expected");
    }

    static void connects() throws Exception {
        try (Connection c = connect("")) {
            equal("app", ask(c, "select current_user::text"));
            equal(true, c.isValid(5));
        }
    }

    static void parameters() throws Exception {
        try (Connection c = connect("");
                PreparedStatement s = c.prepareStatement("select ?::int, ?::text, ?::text, ?::bytea, ?::numeric, ?::int[]")) {
            for (int i = 0; i < 20; i++) {
                s.setInt(1, i);
                s.setString(2, "it's ä € \\ $1");
                s.setString(3, null);
                s.setBytes(4, new byte[] {0, -1});
                s.setBigDecimal(5, new java.math.BigDecimal("1.50"));
                s.setArray(6, c.createArrayOf("int", new Integer[] {1, 2, i}));
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    equal(i, r.getInt(1));
                    equal("it's ä € \\ $1", r.getString(2));
                    equal(null, r.getString(3));
                    equal(new byte[] {0, -1}, r.getBytes(4));
                    equal("1.50", r.getBigDecimal(5).toPlainString());
                    equal(Arrays.asList(1, 2, i), Arrays.asList((Integer[]) r.getArray(6).getArray()));
                }
            }
        }
    }

    static void reuse(String options) throws Exception {
        try (Connection c = connect(options)) {
            for (int i = 0; i < 30; i++) {
                equal(i, ask(c, "select ?::int", i));
                equal("t" + i, ask(c, "select 't' || ?::text", i));
                equal(i + 0.5, ask(c, "select ?::float8 + 0.5", (double) i));
                equal(7, ask(c, "select 7"));
            }
        }
    }

    static void sameName() throws Exception {
        try (Connection a = connect("&prepareThreshold=1"); Connection b = connect("&prepareThreshold=1")) {
            for (int i = 0; i < 20; i++) {
                equal(i, ask(a, "select ?::int", i));
                equal("b" + i, ask(b, "select 'b' || ?::text", i));
            }
        }
    }

    static void rollsBack() throws Exception {
        try (Connection c = connect("")) {
            change(c, "delete from work where client = ?", ME);
            c.setAutoCommit(false);
            change(c, "insert into work values (?, 'gone', 1)", ME);
            c.rollback();
            equal(0L, ask(c, "select count(*) from work where client = ?", ME));
            c.commit();
        }
    }

    static void errors() throws Exception {
        try (Connection c = connect("")) {
            for (int i = 0; i < 10; i++) {
                c.setAutoCommit(false);
                fails("22012", () -> ask(c, "select 1 / ?::int", 0));
                fails("25P02", () -> ask(c, "select 1"));
                c.rollback();
                c.setAutoCommit(true);
                fails("42703", () -> ask(c, "select no_such_column"));
                equal(i, ask(c, "select ?::int", i));
            }
        }
    }

    static void autosave() throws Exception {
        try (Connection c = connect("&autosave=always")) {
            c.setAutoCommit(false);
            for (int i = 0; i < 10; i++) {
                fails("22012", () -> ask(c, "select 1 / ?::int", 0));
                equal(i, ask(c, "select ?::int", i));
            }
            c.commit();
        }
    }

    static void batches(String options) throws Exception {
        try (Connection c = connect(options)) {
            change(c, "delete from work where client = ?", ME);
            for (boolean auto : new boolean[] {true, false}) {
                c.setAutoCommit(auto);
                try (PreparedStatement s = c.prepareStatement("insert into work values (?, ?, ?)")) {
                    for (int i = 0; i < 1000; i++) {
                        s.setString(1, ME);
                        s.setString(2, "batch");
                        s.setInt(3, i);
                        s.addBatch();
                    }
                    equal(1000, s.executeBatch().length);
                }
                if (!auto) {
                    c.commit();
                }
            }
            equal(2000L, ask(c, "select count(*) from work where client = ?", ME));
            c.commit();
        }
    }

    static void batchesWithErrors() throws Exception {
        try (Connection c = connect("")) {
            change(c, "delete from work where client = ?", ME);
            for (int round = 0; round < 8; round++) {
                try (PreparedStatement s = c.prepareStatement("insert into work values (?, 'bad', 1 / ?)")) {
                    for (int i = 200; i >= 0; i--) {
                        s.setString(1, ME);
                        s.setInt(2, i);
                        s.addBatch();
                    }
                    fails("22012", s::executeBatch);
                }
                equal(round, ask(c, "select ?::int", round));
            }
        }
    }

    static void generatedKeys() throws Exception {
        try (Connection c = connect("")) {
            for (int i = 0; i < 10; i++) {
                String sql = "insert into work values (?, 'key', ?)";
                try (PreparedStatement s = c.prepareStatement(sql, new String[] {"n"})) {
                    s.setString(1, ME);
                    s.setInt(2, i);
                    s.executeUpdate();
                    try (ResultSet r = s.getGeneratedKeys()) {
                        r.next();
                        equal(i, r.getInt(1));
                    }
                }
            }
        }
    }

    static void copies() throws Exception {
        try (Connection c = connect("")) {
            change(c, "delete from work where client = ?", ME);
            StringBuilder rows = new StringBuilder();
            for (int i = 0; i < 20000; i++) {
                rows.append(ME).append("\tcopy\t").append(i).append('\n');
            }
            CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            equal(20000L, copy.copyIn("copy work from stdin", new StringReader(rows.toString())));
            StringWriter out = new StringWriter();
            copy.copyOut("copy (select client, token, n from work where client = '" + ME + "' order by n) to stdout", out);
            equal(rows.toString(), out.toString());
            fails("22P02", () -> copy.copyIn("copy work from stdin", new StringReader(ME + "\tbad\tx\n")));
            equal(1, ask(c, "select 1"));
        }
    }

    static void cursors() throws Exception {
        try (Connection c = connect("")) {
            c.setAutoCommit(false);
            for (int round = 0; round < 8; round++) {
                try (PreparedStatement s = c.prepareStatement("select generate_series(1, ?)")) {
                    s.setFetchSize(100);
                    s.setInt(1, 1000);
                    try (ResultSet r = s.executeQuery()) {
                        int n = 0;
                        while (r.next()) {
                            equal(++n, r.getInt(1));
                            if (round % 2 == 1 && n == 150) {
                                break;
                            }
                        }
                        equal(round % 2 == 1 ? 150 : 1000, n);
                    }
                }
                c.commit();
            }
        }
    }

    static void cancels() throws Exception {
        try (Connection c = connect(""); Statement s = c.createStatement()) {
            long start = System.nanoTime();
            s.setQueryTimeout(1);
            fails("57014", () -> s.execute("select pg_sleep(15)"));
            s.setQueryTimeout(0);
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    s.cancel();
                } catch (Exception error) {
                    System.out.println(error);
                }
            });
            canceller.start();
            fails("57014", () -> s.execute("select pg_sleep(15)"));
            canceller.join();
            long seconds = TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - start);
            if (seconds > 10) {
                throw new AssertionError("the cancels took " + seconds + " s");
            }
            equal(1, ask(c, "select 1"));
        }
    }

    static void startupParameters() throws Exception {
        String options = "&currentSchema=mine,public&options=-c%20statement_timeout=7s";
        try (Connection mine = connect(options); Connection plain = connect("")) {
            for (int i = 0; i < 20; i++) {
                equal("mine,public", ask(mine, "show search_path"));
                equal("7s", ask(mine, "show statement_timeout"));
                equal("0", ask(plain, "show statement_timeout"));
            }
        }
    }

    static void settings() throws Exception {
        try (Connection c = connect("")) {
            c.setAutoCommit(false);
            c.setReadOnly(true);
            equal("on", ask(c, "show transaction_read_only"));
            fails("25006", () -> change(c, "insert into work values (?, 'never', 1)", ME));
            c.rollback();
            c.setReadOnly(false);
            equal("off", ask(c, "show transaction_read_only"));
            c.commit();
        }
    }

    static void metadata() throws Exception {
        try (Connection c = connect("");
                ResultSet r = c.getMetaData().getColumns(null, "public", "work", null)) {
            List<String> names = new ArrayList<>();
            while (r.next()) {
                names.add(r.getString("COLUMN_NAME"));
            }
            equal(Arrays.asList("client", "token", "n"), names);
        }
    }

    static void pools() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url());
        config.setUsername(env("PGUSER"));
        config.setPassword(env("PGPASSWORD"));
        config.setMaximumPoolSize(CONNECTIONS);
        config.setConnectionTimeout(60000);
        ExecutorService threads = Executors.newFixedThreadPool(CONNECTIONS);
        String me = ME + "-pool";
        try (HikariDataSource pool = new HikariDataSource(config)) {
            try (Connection c = pool.getConnection()) {
                change(c, "delete from work where client = ?", me);
            }
            List<Future<?>> all = new ArrayList<>();
            for (int i = 0; i < TRANSACTIONS; i++) {
                int n = i;
                all.add(threads.submit(() -> {
                    transaction(pool, me, n);
                    return null;
                }));
            }
            for (Future<?> one : all) {
                one.get(60, TimeUnit.SECONDS);
            }
            try (Connection c = pool.getConnection()) {
                equal((long) TRANSACTIONS, ask(c, "select count(distinct token) from work where client = ?", me));
            }
        } finally {
            threads.shutdownNow();
        }
    }

    static void transaction(HikariDataSource pool, String me, int i) throws SQLException {
        String token = me + "-" + i;
        try (Connection c = pool.getConnection()) {
            c.setAutoCommit(false);
            equal("", ask(c, "select coalesce(current_setting('app.token', true), '')"));
            equal(token, ask(c, "select set_config('app.token', ?, true)", token));
            equal(token, ask(c, "select current_setting('app.token')"));
            equal(i, ask(c, "select ?::int", i));
            change(c, "insert into work values (?, ?, ?)", me, token, i);
            c.commit();
        }
    }
}
