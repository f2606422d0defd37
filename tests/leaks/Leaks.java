// The bugs of runbooks, in Java with pgjdbc.

import java.sql.Connection;
import java.sql.DriverManager;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;

public class Leaks {
    static final String INSERT = "insert into orders values (1, 'a secret')";
    static final List<Connection> KEPT = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "forgotten_release" -> forgottenRelease();
            case "missing_await" -> missingAwait();
            case "panic" -> panic();
            case "slow_call" -> slowCall();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    static void forgottenRelease() throws Exception {
        Connection connection = connect();
        run(connection, "select count(*) from orders");
        KEPT.add(connection);
        silent();
        run(connect(), "select 'waits'");
    }

    static void missingAwait() throws Exception {
        Connection connection = transaction();
        run(connection, INSERT);
        // Nobody joins it, so nobody hears that it has failed before the commit.
        CompletableFuture.runAsync(() -> {
            Object order = null;
            order.toString();
            try {
                connection.commit();
            } catch (Exception error) {
                throw new RuntimeException(error);
            }
        });
        silent();
        Thread.sleep(60_000);
    }

    static void panic() throws Exception {
        Connection connection = transaction();
        Thread handler = new Thread(() -> {
            run(connection, INSERT);
            throw new IllegalStateException("the rest of the order is missing");
        });
        handler.start();
        handler.join();
        silent();
        Thread.sleep(60_000);
    }

    static void slowCall() throws Exception {
        try (Connection connection = transaction()) {
            run(connection, INSERT);
            silent();
            Thread.sleep(60_000);
            connection.commit();
        }
    }

    static Connection transaction() throws Exception {
        Connection connection = connect();
        connection.setAutoCommit(false);
        KEPT.add(connection);
        return connection;
    }

    static Connection connect() throws Exception {
        Properties settings = new Properties();
        settings.setProperty("user", System.getenv("PGUSER"));
        settings.setProperty("ApplicationName", System.getenv("PGAPPNAME"));
        settings.setProperty("sslmode", "disable");
        String url = "jdbc:postgresql://%s:%s/%s";
        return DriverManager.getConnection(
            url.formatted(System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE")), settings);
    }

    static void run(Connection connection, String sql) {
        try {
            connection.createStatement().execute(sql);
        } catch (Exception error) {
            throw new RuntimeException(error);
        }
    }

    static void silent() {
        System.out.println("silent");
    }
}
