# For clients in bash: runs functions as steps and prints a line for each. A step fails by its exit code, and what it
# has printed is why.

steps() {
    local step said failed=0
    for step in "$@"; do
        if said=$("$step" 2>&1); then
            echo "ok $step"
        else
            echo "FAIL $step: $(head -c 600 <<<"$said" | tr '\n' ' ')"
            failed=1
        fi
    done
    exit "$failed"
}

equal() {
    [ "$1" = "$2" ] && return
    echo "expected: ${1:0:200}, got: ${2:0:200}"
    return 1
}
