#!/usr/bin/env bash
# Creates what cluster/deploy/gcp/ray_cluster.yaml refers to, once per project: a network with firewall rules, a service
# account for workers, keys for the bucket.
#
#   cluster/deploy/gcp/set_up.sh PROJECT BUCKET REGION YOUR_ADDRESS/32
#
# BUCKET (without gs://) holds data and runs. Only YOUR_ADDRESS may reach the nodes, by ssh only. Requires the `gcloud`
# command. Keys of a second service account, which may use this bucket and nothing else, are written to
# ~/.textscanner-gcs/credentials.
set -euo pipefail
project=${1:?PROJECT is missing} bucket=${2:?BUCKET is missing} region=${3:?REGION is missing}
address=${4:?YOUR_ADDRESS/32 is missing}

gcloud config set project "$project"
gcloud services enable compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com

gcloud compute networks create textscanner --subnet-mode=custom
gcloud compute networks subnets create textscanner --network=textscanner --region="$region" --range=10.64.0.0/20
gcloud compute firewall-rules create textscanner-inside --network=textscanner --allow=all \
    --source-tags=textscanner --target-tags=textscanner
gcloud compute firewall-rules create textscanner-ssh --network=textscanner --allow=tcp:22 \
    --source-ranges="$address" --target-tags=textscanner

gcloud iam service-accounts create textscanner-worker
gcloud iam service-accounts create textscanner-storage
storage="textscanner-storage@$project.iam.gserviceaccount.com"
gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="serviceAccount:$storage" \
    --role=roles/storage.objectAdmin

umask 077
mkdir -p ~/.textscanner-gcs
gcloud storage hmac create "$storage" --format='value(metadata.accessId,secret)' | {
    read -r id secret
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$id" "$secret" >~/.textscanner-gcs/credentials
}
echo "the keys are in ~/.textscanner-gcs/credentials"
