# What clients need beside themselves. What cannot be had is a reason to skip, said aloud.

skip() {
    echo "$*"
    exit "$skipped"
}

needs() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "no $program in PATH"
    done
}

# Brings the packages of a list into a folder once, and again whenever the list has changed.
once() {
    local list=$1 folder=$2
    shift 2
    cmp -s "$list" "$folder/installed-from" && return
    rm -rf "$folder"
    mkdir -p "$folder"
    "$@" && cp "$list" "$folder/installed-from"
}

python_packages() {
    once "$here/clients/python/requirements.txt" "$work/venv" install_python ||
        skip "the packages in clients/python/requirements.txt could not be installed"
}

install_python() {
    python3 -m venv "$work/venv" &&
        "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/clients/python/requirements.txt"
}

node_packages() {
    once "$here/clients/node/package.json" "$work/node" install_node ||
        skip "the packages in clients/node/package.json could not be installed"
}

install_node() {
    cp "$here/clients/node/package.json" "$work/node/" &&
        npm install --prefix "$work/node" --no-audit --no-fund --no-package-lock --loglevel=error
}

# Finds NAME.jar or NAME-VERSION.jar of each name, in DRIVERS_JARS or where Debian has them, and sets $jars.
java_jars() {
    local places=(${DRIVERS_JARS:+"$DRIVERS_JARS"} "$work/jars" /usr/share/java) name jar
    jars=
    for name in "$@"; do
        jar=$(find -L "${places[@]}" -maxdepth 1 \( -name "$name.jar" -o -name "$name-[0-9]*.jar" \) 2>/dev/null | head -n 1 || true)
        [ -n "$jar" ] || skip "no $name.jar in ${places[*]} (Debian: libpostgresql-jdbc-java libhikaricp-java)"
        jars=$jars:$jar
    done
}
