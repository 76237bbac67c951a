#!/usr/bin/env bash
# Plan the paper's networks for TPU slices that need not exist; print the table of docs/benchmarks/plans.md.
#
#   bash launch/plans.sh [folder]      about an hour on two CPU cores; resumes where it stopped
#
# Needs `pip install '.[plan]'`; IMAGEN=path chooses the command of another environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-docs/plans}
imagen=${IMAGEN:-imagen}
mkdir -p "$out"

plan() {
  local name=$1
  shift
  local file=$out/$name.json
  if [[ -s $file ]]; then
    return
  fi
  echo "$name: imagen plan $*" >&2
  "$imagen" plan "$@" --json >"$file.part"
  mv "$file.part" "$file"
}

plan base64_2b-v4 imagen/base64_2b --topology v4:8x8x4
plan base64_2b-v4-16 imagen/base64_2b --topology v4:4x2x2 --batch 128
plan base64_2b-v5e imagen/base64_2b --topology v5e:16x16
plan base64_2b-v5p imagen/base64_2b --topology v5p:4x4x8
plan base64_2b-v6e imagen/base64_2b --topology v6e:16x16
plan base64_2b-v6e-fsdp16 imagen/base64_2b --topology v6e:16x16 --mesh.fsdp 16
plan sr256-v4 imagen/sr256 --topology v4:4x4x8
plan sr1024-v4 imagen/sr1024 --topology v4:4x4x8
plan sr256-v4-block imagen/sr256 --topology v4:4x4x8 --stage.model.remat block
plan sr256_unet-v4 imagen/sr256_unet --topology v4:4x4x8
plan sr1024-sample-v5e-1 imagen/sr1024 --topology v5e:1x1 --sample --batch 1
plan sr1024-sample-v5e-4 imagen/sr1024 --topology v5e:2x2 --sample --batch 1
plan sr1024-sample-v5e-4-height imagen/sr1024 --topology v5e:2x2 --sample --batch 4 \
  --mesh.data 1 --mesh.fsdp 1 --mesh.spatial 4
plan sr1024-sample-v5e-4-images imagen/sr1024 --topology v5e:2x2 --sample --batch 4 \
  --mesh.data 4 --mesh.fsdp 1 --mesh.spatial 1

plan t5_xxl-v5e imagen/base64_2b --topology v5e:2x4 --encode
plan t5_xxl-v5e-prompts imagen/base64_2b --topology v5e:2x4 --encode --split heads --batch 6

plan if_i_xl-sample-v5e-4 deepfloyd/i_xl --topology v5e:2x2 --sample --batch 1 --steps 20 100
plan if_i_xl-sample-v5e-1 deepfloyd/i_xl --topology v5e:1x1 --sample --batch 1 --steps 20 100
plan if_ii_l-sample-v5e-4 deepfloyd/ii_l --topology v5e:2x2 --sample --batch 1 --steps 20 100
plan if_ii_l-sample-v5e-1 deepfloyd/ii_l --topology v5e:1x1 --sample --batch 1 --steps 20 100
plan if_i_xl-sample-v6e-1 deepfloyd/i_xl --topology v6e:1x1 --sample --batch 1 --steps 20 100
plan if_ii_l-sample-v6e-1 deepfloyd/ii_l --topology v6e:1x1 --sample --batch 1 --steps 20 100
plan if_t5-v5e-1 deepfloyd/i_xl --topology v5e:1x1 --encode --split heads --batch 2
plan if_t5-v5e-1-int8 deepfloyd/i_xl --topology v5e:1x1 --encode --split heads --batch 2 --text.dtype int8
plan if_t5-v5e-4 deepfloyd/i_xl --topology v5e:2x2 --encode --split heads --batch 2
plan if_t5-v6e-1 deepfloyd/i_xl --topology v6e:1x1 --encode --split heads --batch 2
plan if_i_m-v5e-4 deepfloyd/i_m --topology v5e:2x2 --batch 32
plan if_i_xl-lora-v5e-4 deepfloyd/i_xl --topology v5e:2x2 --batch 4 --lora.rank 16 \
  --stage.model.remat block --mesh.fsdp 4

"$imagen" plan --table "$out"/*.json
