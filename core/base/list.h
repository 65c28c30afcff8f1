/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * list - doubly linked and intrusive: the links live in the thing that is listed, so putting it
 * on a list allocates nothing and taking it off needs no search.
 *
 * The head is a node of its own and points to itself when the list is empty. A node that is on no
 * list points to itself too (list_init), so list_remove may be called twice.
 */
#include "core/base/must.h"
#include <stdbool.h>

struct list {
    struct list *next, *prev;
};

#define list_entry(node, type, member) container_of(node, type, member)

#define list_for_each(node, head)                                                                  \
    for (struct list *node = (head)->next; node != (head); node = node->next)

/* The current node may be removed while walking. */
#define list_for_each_safe(node, head)                                                             \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);              \
         node = node##_next, node##_next = node->next)

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_between(struct list *node, struct list *prev, struct list *next)
{
    node->prev = prev;
    node->next = next;
    prev->next = node;
    next->prev = node;
}

static inline void list_push_back(struct list *head, struct list *node)
{
    list_insert_between(node, head->prev, head);
}

static inline void list_push_front(struct list *head, struct list *node)
{
    list_insert_between(node, head, head->next);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* The first node, taken off; NULL when the list is empty. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *node = head->next;
    if (node == head)
        return NULL;
    list_remove(node);
    return node;
}

/* Moves everything from one list to the end of another; from is empty afterwards. */
static inline void list_append_all(struct list *to, struct list *from)
{
    if (list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}
