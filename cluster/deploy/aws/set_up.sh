#!/usr/bin/env bash
# Creates what ray_cluster.yaml refers to, once per account and region: two roles and a security group.
#
#   cluster/deploy/aws/set_up.sh BUCKET REGION YOUR_ADDRESS/32
#
# BUCKET holds data and runs. Only YOUR_ADDRESS may reach the nodes, by ssh only. Requires the `aws` command and
# permission to create roles and security groups. Uses the default VPC; prints the id of the security group.
set -euo pipefail
bucket=${1:?BUCKET is missing} region=${2:?REGION is missing} address=${3:?YOUR_ADDRESS/32 is missing}
folder=$(cd "$(dirname "$0")" && pwd)
account=$(aws sts get-caller-identity --query Account --output text)

policy() { sed "s/BUCKET/$bucket/g; s/REGION/$region/g; s/ACCOUNT/$account/g" "$folder/$1"; }

for role in textscanner-head textscanner-worker; do
    aws iam create-role --role-name "$role" --assume-role-policy-document "$(policy trust_policy.json)" >/dev/null
    aws iam put-role-policy --role-name "$role" --policy-name storage \
        --policy-document "$(policy storage_policy.json)"
    aws iam create-instance-profile --instance-profile-name "$role" >/dev/null
    aws iam add-role-to-instance-profile --instance-profile-name "$role" --role-name "$role"
done
aws iam put-role-policy --role-name textscanner-head --policy-name autoscaler \
    --policy-document "$(policy head_policy.json)"

# Spot instances need this role once per account; it exists if the account has used spot instances before.
aws iam create-service-linked-role --aws-service-name spot.amazonaws.com >/dev/null 2>&1 || true

vpc=$(aws ec2 describe-vpcs --region "$region" --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
group=$(aws ec2 create-security-group --region "$region" --group-name textscanner --vpc-id "$vpc" \
    --description "TextScanner: nodes among themselves, and ssh from one address" --query GroupId --output text)
aws ec2 authorize-security-group-ingress --region "$region" --group-id "$group" --protocol all --source-group "$group" >/dev/null
aws ec2 authorize-security-group-ingress --region "$region" --group-id "$group" --protocol tcp --port 22 \
    --cidr "$address" >/dev/null
# EFA also requires the rule for outgoing traffic.
aws ec2 authorize-security-group-egress --region "$region" --group-id "$group" --protocol all --source-group "$group" >/dev/null

echo "write into ray_cluster.yaml:  SecurityGroupIds: [$group]"
