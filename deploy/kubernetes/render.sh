#!/bin/sh
# Makes what kustomize uses out of the chart, so that both say the same: deploy/kubernetes/base and components.
# HELM: the program.
set -eu
cd "$(dirname "$0")"
render() {
    to=$1
    shift
    { echo "# Made by deploy/kubernetes/render.sh from the chart: edit that."; "${HELM:-helm}" template relay-gateway chart "$@"; } >"$to"
}
render base/relay-gateway.yaml
render components/monitoring/servicemonitor.yaml --set serviceMonitor.enabled=true \
    --show-only templates/servicemonitor.yaml
render components/autoscaling/horizontalpodautoscaler.yaml --set autoscaling.enabled=true \
    --show-only templates/horizontalpodautoscaler.yaml
