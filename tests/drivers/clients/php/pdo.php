<?php
// PHP: PDO with its statements named pdo_stmt_*, emulated and unnamed ones, persistent connections, and pgsql.

$failed = false;

function step(string $name, callable $step): void
{
    global $failed;
    try {
        $step();
        echo "ok $name\n";
    } catch (Throwable $error) {
        $failed = true;
        echo "FAIL $name: ", str_replace("\n", ' ', $error->getMessage()), "\n";
    }
}

function equal($expected, $got): void
{
    if ($expected !== $got) {
        throw new Exception('expected ' . json_encode($expected) . ', got ' . json_encode($got));
    }
}

function connect(array $options = []): PDO
{
    $dsn = 'pgsql:host=' . getenv('PGHOST') . ';port=' . getenv('PGPORT') . ';dbname=' . getenv('PGDATABASE');
    $options[PDO::ATTR_ERRMODE] = PDO::ERRMODE_EXCEPTION;
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), $options);
}

$kinds = [
    'named' => [],
    'emulated' => [PDO::ATTR_EMULATE_PREPARES => true],
    'unnamed' => [PDO::PGSQL_ATTR_DISABLE_PREPARES => true],
    'persistent' => [PDO::ATTR_PERSISTENT => true],
];
foreach ($kinds as $kind => $options) {
    step("statements_$kind", function () use ($options) {
        $db = connect($options);
        $statement = $db->prepare('select ?::int + 1, ?::text');
        for ($i = 0; $i < 30; $i++) {
            $statement->execute([$i, "it's ä"]);
            equal([$i + 1, "it's ä"], $statement->fetch(PDO::FETCH_NUM));
        }
    });
}

step('errors_in_the_middle', function () {
    $db = connect();
    // They live longer than the transactions: older PDOs free a statement with DEALLOCATE, which would fail in them.
    $insert = $db->prepare('insert into work values (?, ?, ?)');
    $divide = $db->prepare('select 1 / ?::int');
    for ($i = 0; $i < 10; $i++) {
        $db->beginTransaction();
        $insert->execute(['php', 'gone', $i]);
        try {
            $divide->execute([0]);
            throw new Exception('no error');
        } catch (PDOException $error) {
            equal('22012', $error->getCode());
        }
        $db->rollBack();
        equal(0, $db->query("select count(*) from work where client = 'php'")->fetchColumn());
    }
});

// PDO frees a statement with DEALLOCATE in a simple query, outside of any transaction.
step('statements_are_deallocated', function () {
    $db = connect();
    for ($i = 0; $i < 30; $i++) {
        $statement = $db->prepare("select $i + ?::int");
        $statement->execute([1]);
        equal($i + 1, $statement->fetchColumn());
        $statement = null;
    }
});

step('copies', function () {
    $db = connect();
    $db->beginTransaction();
    $rows = array_map(fn ($i) => "php\tcopy\t$i", range(1, 2000));
    $db->pgsqlCopyFromArray('work', $rows);
    equal(2000, count($db->pgsqlCopyToArray("(select n from work where client = 'php' and token = 'copy')")));
    $db->rollBack();
});

step('pgsql', function () {
    $db = pg_connect(''); // it reads the PG* variables
    pg_prepare($db, 's', 'select $1::int');
    for ($i = 0; $i < 30; $i++) {
        equal([(string) $i], pg_fetch_row(pg_execute($db, 's', [$i])));
        equal([(string) $i], pg_fetch_row(pg_query_params($db, 'select $1::int', [$i])));
    }
});

exit($failed ? 1 : 0);
