#!/bin/bash
# Several processes of one run, by the real launchers, on one CPU: bash benchmarks/trust/ranks.sh (minutes; an empty folder is made)
set -u
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$ROOT/src OMP_NUM_THREADS=1
cd "$(mktemp -d)" && cp "$ROOT/tests/tiny.yaml" . && export SWEET_CACHE=$PWD/cache
KEYS="device=cpu max_steps=20 checkpoint_every=5 width.mode=independent"
TWO="torchrun --nproc-per-node 2 --master-addr 127.0.0.1 --master-port 29651"
rank_1() { # the process of rank 1 of the run that writes $1
    for id in $(pgrep -f "sweet pretrain tiny.yaml.*--out $1"); do
        tr '\0' '\n' < "/proc/$id/environ" 2>/dev/null | grep -q '^RANK=1$' && echo "$id"
    done | tail -1
}
await() { for _ in $(seq 3000); do [ -e "$1" ] && return; sleep 0.1; done; }
seconds() { echo "$(date +%s.%N) - $1" | bc; }

$TWO -m sweet pretrain tiny.yaml $KEYS --out whole -q > /dev/null 2> whole.err
echo "two processes: code $?"

$TWO -m sweet pretrain tiny.yaml device=cpu max_steps=4000 checkpoint_every=5 --out lost -q > /dev/null 2> lost.err & RUN=$!
await lost/checkpoints/step-10; kill -9 "$(rank_1 lost)"; SINCE=$(date +%s.%N); wait $RUN
echo "a process is killed: code $?, after $(seconds "$SINCE") s; $(grep -m1 '^error' lost.err)"

$TWO --max-restarts 1 -m sweet pretrain tiny.yaml $KEYS --out again -q > /dev/null 2> again.err & RUN=$!
await again/checkpoints/step-10; kill -9 "$(rank_1 again)"; wait $RUN
echo "--max-restarts: code $?, same weights: $(cmp -s again/template.safetensors whole/template.safetensors && echo yes || echo NO)"

$TWO -m sweet pretrain tiny.yaml device=cpu max_steps=4000 checkpoint_every=3000 --out term > /dev/null 2> term.err & RUN=$!
await term/metrics.jsonl; kill -TERM $RUN; wait $RUN
echo "SIGTERM to torchrun: code $?, checkpoints: $(ls term/checkpoints); $(grep -m1 interrupted term.err)"

accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 29652 \
    -m sweet pretrain tiny.yaml $KEYS --out launched -q > /dev/null 2> launched.err
echo "accelerate launch: code $?, same weights: $(cmp -s launched/template.safetensors whole/template.safetensors && echo yes || echo NO)"
